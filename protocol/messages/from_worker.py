"""Worker -> supervisor."""

from typing import Literal

import msgspec

from protocol.messages.base import CleanupTier, ErrorKind, Message, Part


class FromWorker(Message, frozen=True, kw_only=True):
    """Base of what a worker says."""


class Memory(Part, frozen=True, array_like=True):
    """A worker's own figures, in bytes: resident, Python heap, native caches of libraries. `blocks`: how many memory
    blocks Python's objects take. `kept_bytes`: what the C library keeps free for the next request, resident or not."""

    rss_bytes: int
    heap_bytes: int
    native_bytes: int
    blocks: int = 0
    kept_bytes: int = 0


class Ready(FromWorker, frozen=True, kw_only=True):
    """The worker is warm and takes leases."""

    slot: int
    incarnation: int
    pid: int
    memory: Memory
    sandbox: str = "off"


class Heartbeat(FromWorker, frozen=True, kw_only=True):
    """Sent between items at most once a second, and every few seconds when idle."""

    slot: int
    incarnation: int
    memory: Memory
    items_done: int
    current: int | None


class ItemError(Part, frozen=True, kw_only=True):
    """Why an item has no result."""

    kind: ErrorKind
    message: str


Outcome = Literal["done", "failed", "deferred", "shunned", "machine", "outside"]


class StepMade(Part, frozen=True, array_like=True):
    """What one step made, for the cache: `outputs` are (path token, width, height, bytes), `values` its JSON object."""

    seconds: float
    outputs: list[tuple[str, int, int, int]] = []
    values: msgspec.Raw = msgspec.Raw(b"{}")


class ItemMade(Part, frozen=True, array_like=True):
    """What the cache needs to know of an item that is done. `stamp` is (device, inode, size, mtime_ns, ctime_ns) of
    the image, the same before it was hashed (`hashed_at_ns` since the epoch) and after the last step; `warnings`
    are those that the same bytes would give again."""

    stamp: tuple[int, int, int, int, int]
    hashed_at_ns: int
    steps: list[StepMade]
    warnings: msgspec.Raw


class Weighed(Part, frozen=True, array_like=True):
    """What the header said of an item's memory: its class (`format`; `kind`: progressive, interlaced or empty;
    `decoder`), the bytes predicted from it before anything was learned (`prior_bytes`) and with what was
    (`predicted_bytes`), and what the worker held when it began."""

    format: str
    kind: str
    decoder: str
    prior_bytes: int
    predicted_bytes: int
    held_bytes: int


class ItemReport(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one item.

    done, failed: settled. deferred: not decoded, its prediction `needs_bytes` is above the grant's
    `memory_bytes`. shunned: still what was quarantined. machine: the machine is at fault (disk full, no
    right to write); the item is retried when the supervisor thinks it is worth it. outside: the worker's
    sandbox does not let it read the file; a worker started for it can.
    `outputs`, `values` and `warnings` are passed on as they are.
    """

    id: int
    outcome: Outcome
    seconds: float
    peak_bytes: int = 0
    error: ItemError | None = None
    outputs: msgspec.Raw = msgspec.Raw(b"[]")
    values: msgspec.Raw = msgspec.Raw(b"{}")
    warnings: msgspec.Raw = msgspec.Raw(b"[]")
    written: list[str] = []
    """Path tokens of the outputs, to be synced before the row says done."""
    needs_bytes: int = 0
    size_bytes: int = 0
    mtime_ns: int = 0
    version: str = ""
    content_hash: str = ""
    """SHA-256 of the input as it was read, in hexadecimal; empty unless the worker was told to hash."""
    made: ItemMade | None = None
    """For the cache; None where it was not asked for, or the image changed while it was worked on."""
    held: list[int] = []
    """What the worker held before the item, once it was read, and after each step; empty where not measured."""
    held_blocks: int = 0
    """Python's memory blocks before the item, without those of reports that wait; 0 where not measured."""
    step_blocks: list[int] = []
    """How many more blocks there were once it was read, and after each step; empty where not measured."""
    step_models: list[list[str]] = []
    """The models that each step used, by name; empty where none did, or nothing was measured."""
    weighed: Weighed | None = None
    """None where no peak was predicted or measured."""


class Report(FromWorker, frozen=True, kw_only=True):
    """Items of a lease that are over, those handed back unstarted, and whether the lease is finished."""

    slot: int
    incarnation: int
    lease: int
    items: list[ItemReport]
    handed_back: list[int]
    finished: bool
    memory: Memory


class Freed(Part, frozen=True, array_like=True):
    """What one action of a clean-up gave back in a worker. `owner` is worker, or the operation that subscribed it."""

    name: str
    owner: str
    before_bytes: int
    after_bytes: int
    seconds: float
    error: str | None = None


class Trimmed(FromWorker, frozen=True, kw_only=True):
    """What a trim gave back, by means, in bytes."""

    slot: int
    incarnation: int
    before_bytes: int
    after_bytes: int
    seconds: float
    tier: CleanupTier = "moderate"
    freed: list[Freed] = []
    cleanup: int = 0
    """The number of the clean-up it belongs to, as it was told."""
