"""An item (one image under one recipe) as the policy holds it, and what became of it."""

from typing import Any, Literal

import msgspec

from protocol.messages import BatchState, Counts, ItemError, ItemReport, Recipe, Summary
from supervisor.policy.cache.made import FileStamp, Made, MadeOutput, MadeStep

SettledState = Literal["done", "cached", "failed", "quarantined", "cancelled"]


class Item(msgspec.Struct, kw_only=True):
    """An item that waits or is leased. `charges` are deaths blamed on it, by crash or timeout;
    `memory_charges` those by our hard limit or the kernel's OOM killer; `outside_kills` those nobody is
    blamed for; `unclean_stops` supervisor stops in a row that found it in progress."""

    id: int
    batch: str
    root: int
    stem: str
    charges: int = 0
    memory_charges: int = 0
    outside_kills: int = 0
    unclean_stops: int = 0
    machine_tries: int = 0
    outside: int = 0
    """How often it was found outside the sandbox of its worker."""
    needs_bytes: int = 0
    """What it is known to need above a worker's baseline; 0: not known."""
    identity: bytes = b""
    """What it has in common with identical images, where the cache was asked for it."""
    owned: bool = False
    shunned: tuple[int, int, str] | None = None

    @property
    def suspect(self) -> bool:
        """A suspect runs in a lease of one."""
        return bool(self.charges or self.memory_charges or self.unclean_stops)

    @property
    def tries(self) -> int:
        """How often it was begun, the try under way included."""
        return 1 + self.charges + self.memory_charges + self.outside_kills + self.unclean_stops


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the journal keeps it. `recipe` is the recipe as it was when the batch was opened."""

    batch: str
    recipe: Recipe
    out: str | None
    overwrite: bool
    strict: bool
    priority: int
    hold: bool
    fingerprint: str | None
    kind: str
    opened_at: float
    open: bool = True
    abandoned_at: float | None = None
    """When it was closed in place of its client, in seconds since the epoch; None: it was not."""
    state: BatchState = "accepted"
    paused: str | None = None
    finished_at: float | None = None
    items: int = 0
    ignored: int = 0
    next_chunk: int = 0
    counts: Counts = Counts()
    summary: Summary = Summary()
    roots: list[tuple[str, str]] = []
    """(root, prefix) by number."""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The final word on an item, ready for the journal. `detail` is the JSON object of
    `error outputs values warnings`."""

    id: int
    batch: str
    state: SettledState
    tries: int
    seconds: float = 0.0
    peak_bytes: int = 0
    slot: int | None = None
    detail: bytes = b'{"error":null,"outputs":[],"values":{},"warnings":[]}'
    written: list[str] = []
    """Output path tokens to be synced before the row is committed."""
    quarantine: "QuarantineFacts | None" = None
    identity: bytes = b""
    made: Made | None = None
    """What the cache is to keep of it."""


class QuarantineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of an image that killed its workers."""

    kind: str
    message: str
    recipe: str
    size_bytes: int
    mtime_ns: int
    version: str
    """The operation versions of the recipe; others may fare better with the image."""
    evidence: dict[str, Any]


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of an item that goes back to the queue, for the journal."""

    id: int
    charges: int
    memory_charges: int
    outside_kills: int
    unclean_stops: int
    needs_bytes: int


_encode = msgspec.json.encode
_NOTHING = b'{"error":null,"outputs":[],"values":{},"warnings":[]}'


def detail_of(report: ItemReport) -> bytes:
    """Returns the `detail` of a settlement from what the worker reported, without parsing what is passed on."""
    outputs, values, warnings = bytes(report.outputs), bytes(report.values), bytes(report.warnings)
    if report.error is None and outputs == b"[]" and values == b"{}" and warnings == b"[]":
        return _NOTHING
    error = _encode(report.error)
    return b'{"error":%b,"outputs":%b,"values":%b,"warnings":%b}' % (error, outputs, values, warnings)


def detail_of_error(error: ItemError) -> bytes:
    """Returns the `detail` of an item that has nothing but its error."""
    return b'{"error":%b,"outputs":[],"values":{},"warnings":[]}' % _encode(error)


def made_of(report: ItemReport, stem: str) -> Made | None:
    """Returns what the cache is to keep of a report, None where the worker could not vouch for it (the image changed
    while it was worked on) or was not asked to."""
    made = report.made
    if made is None or report.outcome != "done" or not report.content_hash:
        return None
    return Made(
        id=report.id,
        stem=stem,
        content=report.content_hash,
        stamp=FileStamp(*made.stamp),
        hashed_at_ns=made.hashed_at_ns,
        steps=[
            MadeStep(step.seconds, [MadeOutput(*output) for output in step.outputs], bytes(step.values))
            for step in made.steps
        ],
        warnings=bytes(made.warnings),
    )
