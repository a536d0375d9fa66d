"""Named points between two steps that must not depend on each other; tests end the process at them.

A process killed at any of them must leave nothing but orphans behind: never an entry without its blobs that is
delivered, never half an output under its name, never a directory that nobody reaps or one that is not ours reaped.
"""

from collections.abc import Callable

CACHE_POINTS = (
    "blob.written", "blob.described", "blob.linked", "index.inserted", "index.committed", "cull.deleted",
    "cull.committed", "deliver.announced", "deliver.written", "deliver.linked", "deliver.renamed", "placed.noted",
)  # fmt: skip
"""In the supervisor: results published, indexed, culled, delivered."""
REAP_POINTS = (
    "reap.looked", "reap.renamed", "reap.unlinked", "reap.flattened", "reap.emptied", "reap.removed",
)  # fmt: skip
"""In the supervisor: a dead worker's directory taken away."""
PUBLISH_POINTS = ("publish.announced", "publish.created", "publish.written", "publish.renamed", "publish.withdrawn")
"""In a worker: an output written and renamed."""

_hook: Callable[[str], None] | None = None


def at(point: str) -> None:
    """Says that this point is reached."""
    if _hook is not None:
        _hook(point)


def call_at_points(hook: Callable[[str], None] | None) -> None:
    """Has `hook` called with each point's name from now on; None: nobody."""
    global _hook
    _hook = hook
