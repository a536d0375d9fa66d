"""What memory is used by whom, what was learned about it and what was done about it: the answer to `memory`.

Sizes are bytes, durations seconds, dates seconds since the epoch. A figure that could not be had is None, never 0.
"""

from protocol.messages.answers import Answer, HeldLevel
from protocol.messages.base import Part
from protocol.messages.requests import Request


class MemoryRequest(Request, frozen=True, kw_only=True):
    """The whole picture of memory. Answer: `MemoryReport`."""


class ProcessMemory(Part, frozen=True, kw_only=True):
    """One process of ours. `role`: supervisor, template, worker, gateway. Limits are of its RSS (swap included)."""

    role: str
    pid: int | None
    rss_bytes: int
    private_bytes: int
    shared_bytes: int
    swap_bytes: int | None = None
    heap_bytes: int | None = None
    """Python's own heap, as the process says."""
    native_bytes: int | None = None
    """What is neither Python's heap nor shared: decoders, models, what malloc holds."""
    kept_bytes: int | None = None
    """What malloc keeps free, as the process says: it is resident until a trim, and nobody's."""
    slot: int | None = None
    state: str | None = None
    baseline_bytes: int | None = None
    soft_bytes: int | None = None
    recycle_bytes: int | None = None
    hard_bytes: int | None = None
    reserved_bytes: int | None = None
    """What the items it was granted may take above the baseline; None: it has none."""
    batch_size: int | None = None
    current: str | None = None


class MemoryLease(Part, frozen=True, kw_only=True):
    """Permission for a large piece: a model, a large decode, an inference. `slot` -1: a client holds it."""

    number: int
    slot: int
    purpose: str
    bytes: int
    granted_at: float
    path: str | None = None
    reserved_bytes: int = 0
    """What it takes from the pool; 0: it lies within what its item was admitted with, or in its worker's baseline."""


class MemoryLeases(Part, frozen=True, kw_only=True):
    """The bounded pool that memory leases come from, and those that are out."""

    limit_bytes: int
    granted_bytes: int
    """What is taken from the pool now."""
    granted_total: int
    refused_total: int
    expired_total: int
    leases: list[MemoryLease]
    last_refusal: str | None = None


class ModelMemory(Part, frozen=True, kw_only=True):
    """A model that a worker has loaded, with what loading it was measured to take."""

    slot: int
    name: str
    bytes: int
    loaded_at: float
    used_at: float
    uses: int


class CleanupAction(Part, frozen=True, kw_only=True):
    """One action of a clean-up. `owner`: supervisor, worker N, or who subscribed. `error`: it raised or hung."""

    name: str
    owner: str
    freed_bytes: int
    seconds: float
    error: str | None = None


class Cleanup(Part, frozen=True, kw_only=True):
    """One clean-up: why, what each action gave back, and whether memory came back to the baseline."""

    number: int
    at: float
    tier: str
    reason: str
    before_bytes: int
    after_bytes: int
    baseline_bytes: int
    recovered: bool | None
    """None: not verified yet."""
    actions: list[CleanupAction]


class Trend(Part, frozen=True, kw_only=True):
    """Where a figure is heading: `subject` is total or a worker. `seconds_to`: threshold to seconds, None: not on this
    trend."""

    subject: str
    bytes_per_second: float
    confidence: float
    samples: int
    seconds_to: dict[str, float | None]


class Leak(Part, frozen=True, kw_only=True):
    """Steady growth that was found. `subject_kind`: worker, operation, model. `where`: heap or native."""

    subject_kind: str
    subject: str
    where: str
    bytes_per_item: float
    bytes_per_second: float
    items: int
    confidence: float
    found_at: float
    message: str


class Collection(Part, frozen=True, kw_only=True):
    """What one means of giving memory back (gc, malloc_trim, native caches) gave in one worker."""

    slot: int
    means: str
    runs: int
    freed_bytes: int
    held_bytes: int
    """What was above the baseline before the runs, summed: the efficiency is freed / held."""
    useless: bool


class Prediction(Part, frozen=True, kw_only=True):
    """How well the peaks of one class of images are predicted. `ratio` is predicted / measured."""

    operation: str
    format: str
    kind: str
    """progressive, interlaced, or empty."""
    decoder: str
    items: int
    factor: float
    """What the prior from the header is multiplied with: the learned upper quantile."""
    ratio_median: float
    ratio_p95: float
    under_predicted: int


class Store(Part, frozen=True, kw_only=True):
    """One internal store: what it holds and what it may hold."""

    name: str
    owner: str
    count: int
    limit_count: int | None
    bytes: int | None
    limit_bytes: int | None


class MemoryReport(Answer, frozen=True, kw_only=True):
    """Everything known about memory."""

    version: str
    pid: int
    uptime_seconds: float
    level: str
    level_held: HeldLevel | None = None
    """None: the level is what the figures of the moment call for."""
    pressure: float
    budget_bytes: int
    budget_source: str
    used_bytes: int
    used_source: str
    available_bytes: int
    swap_in_bytes_per_second: float
    stall_share: float | None
    """PSI: the share of time that some task waited for memory; None: the kernel does not tell."""
    stalled: bool = False
    """Whether leases are of one image for that reason."""
    thresholds: dict[str, float | int | None]
    processes: list[ProcessMemory]
    memory_leases: MemoryLeases
    models: list[ModelMemory]
    cleanups: list[Cleanup]
    trend: list[Trend]
    leaks: list[Leak]
    collection: list[Collection]
    predictions: list[Prediction]
    stores: list[Store]
