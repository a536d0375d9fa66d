"""Named points between two steps that must not depend on each other; tests end the process at them.

A process killed at any of them must leave nothing but orphans behind: never an entry without its blobs that is
delivered, never half an output.
"""

from collections.abc import Callable

POINTS = (
    "blob.written", "blob.described", "blob.linked", "index.inserted", "index.committed", "cull.deleted",
    "cull.committed", "deliver.announced", "deliver.written", "deliver.linked", "deliver.renamed", "placed.noted",
)  # fmt: skip

_hook: Callable[[str], None] | None = None


def at(point: str) -> None:
    """Says that this point is reached."""
    if _hook is not None:
        _hook(point)


def call_at_points(hook: Callable[[str], None] | None) -> None:
    """Has `hook` called with each point's name from now on; None: nobody."""
    global _hook
    _hook = hook
