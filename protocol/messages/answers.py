"""Supervisor -> client: one answer for each request, never unasked."""

from typing import Any, Literal

import msgspec

from protocol.messages.base import PROTOCOL_VERSION, BatchState, Message, Part, WorkerState
from protocol.messages.recipes import Recipe


class Answer(Message, frozen=True, kw_only=True):
    """Base of the answers; `id` is the request's."""

    v: int = PROTOCOL_VERSION
    id: int | str = 0


class Problem(Answer, frozen=True, kw_only=True):
    """The request was not carried out. `code` is stable, `message` is for people."""

    code: str
    fault: Literal["caller", "peer", "image", "machine", "ours"]
    message: str
    exit_code: int = 70


class Welcome(Answer, frozen=True, kw_only=True):
    """Who is there."""

    version: str
    pid: int
    state_directory: str
    workers: int
    recipes: list[Recipe]
    events_endpoint: str


class BatchOpened(Answer, frozen=True, kw_only=True):
    """The batch is on disk. `next_chunk` is the number of the first `add_items` not yet known.

    `resumed` is true where an unfinished batch of the same fingerprint is continued.
    """

    batch: str
    resumed: bool
    next_chunk: int


class ItemsAdded(Answer, frozen=True, kw_only=True):
    """The chunk is on disk; `added` are new items, `known` were in the batch already."""

    batch: str
    chunk: int
    added: int
    known: int


class BatchClosed(Answer, frozen=True, kw_only=True):
    """The batch is complete on disk."""

    batch: str
    items: int
    ignored: int


class Counts(Part, frozen=True, kw_only=True):
    """How many items are in each state; `done` and the others count what is committed."""

    pending: int = 0
    leased: int = 0
    done: int = 0
    cached: int = 0
    failed: int = 0
    quarantined: int = 0
    cancelled: int = 0


class Summary(Part, frozen=True, kw_only=True):
    """What running the batch took (`supervisor run --json` prints it)."""

    seconds: float = 0.0
    items_per_second: float = 0.0
    peak_bytes: int = 0
    budget_bytes: int = 0
    recycles: dict[str, int] = {}
    restarts: int = 0
    kills: int = 0
    batch_shrinks: int = 0
    oom_kills: int = 0


class BatchProgress(Answer, frozen=True, kw_only=True):
    """How far a batch is, and the state of the pool that a progress line shows."""

    batch: str
    state: BatchState
    open: bool
    recipe: str
    out: str | None
    items: int
    ignored: int
    counts: Counts
    summary: Summary
    paused: str | None = None
    used_bytes: int = 0
    batch_sizes: list[int] = []
    read_bytes: int = 0
    """Size of the images that were worked on, since this supervisor has the batch; from the cache: nothing is read."""
    abandoned_at: float | None = None
    """When it was closed in place of a client that was heard of no more (seconds since the epoch); None: it was not."""


class BatchRow(Part, frozen=True, kw_only=True):
    """One line of `batches`."""

    batch: str
    state: BatchState
    recipe: str
    out: str | None
    opened_at: float
    finished_at: float | None
    priority: int
    kind: str
    items: int
    ignored: int
    counts: Counts
    used_at: float | None = None
    """When it finished or was last looked at (to within the time between two sweeps of the retention)."""
    bytes: int | None = None
    abandoned_at: float | None = None


class Batches(Answer, frozen=True, kw_only=True):
    """The batches, newest first."""

    batches: list[BatchRow]


class ResultsPage(Answer, frozen=True, kw_only=True):
    """Settled items as the command line prints them; `next` is None at the end of what has settled so far."""

    batch: str
    results: list[msgspec.Raw]
    next: int | None


class ImageHash(Part, frozen=True, array_like=True):
    """What one image looks like: 16 hexadecimal digits, or a vector as Base64 of float16 (little-endian) and the model
    it is from. Width and height in pixels, upright; 0 where the recipe did not tell."""

    path: str
    value: str
    width: int = 0
    height: int = 0
    model: str = ""


class ImageHashesPage(Answer, frozen=True, kw_only=True):
    """Images in the order they settled, batch by batch; `next` is None at the end. `last` is the highest number that
    anything had settled under: what comes later has a higher one."""

    images: list[ImageHash]
    next: tuple[int, int] | None
    last: int


class Done(Answer, frozen=True, kw_only=True):
    """Carried out."""

    message: str = ""


class LastDeath(Part, frozen=True, kw_only=True):
    """Why the worker before this one in the slot is gone."""

    cause: str
    at: float


class WorkerStatus(Part, frozen=True, kw_only=True):
    """One slot and the worker in it."""

    slot: int
    pid: int | None
    state: WorkerState
    rss_bytes: int
    private_bytes: int
    baseline_bytes: int
    soft_bytes: int
    hard_bytes: int
    batch_size: int
    items_done: int
    current: str | None
    recycles: int
    restarts: int
    last_death: LastDeath | None
    batch_sizes: list[int] = []
    note: str | None = None
    sandbox: str | None = None
    """The layers that confine the worker: `landlock 6 + seccomp`, `none`, `off`; None while there is no worker."""


class QueueStatus(Part, frozen=True, kw_only=True):
    """Items waiting and items in the hands of workers."""

    pending: int
    leased: int


class Totals(Part, frozen=True, kw_only=True):
    """Since this supervisor started."""

    done: int = 0
    cached: int = 0
    failed: int = 0
    quarantined: int = 0
    recycles: int = 0
    restarts: int = 0
    batch_shrinks: int = 0
    kills: int = 0


class RecipeTotals(Part, frozen=True, kw_only=True):
    """What became of the images of one recipe since this supervisor started; `outcomes` counts by item state."""

    recipe: str
    operations: list[str]
    outcomes: dict[str, int]


class Durations(Part, frozen=True, kw_only=True):
    """How long images took that workers worked on: `counts[i]` took at most `bounds_seconds[i]` and more than the bound
    before it; the last count is of those above all bounds."""

    bounds_seconds: list[float] = []
    counts: list[int] = []
    sum_seconds: float = 0.0


class HeldLevel(Part, frozen=True, kw_only=True):
    """A memory level that the figures of the moment do not call for any more, and when it is left: after
    `hold_seconds` below the share `eases_below`, of which `calm_seconds` are over, or after `stuck_seconds` between
    there and the share it is entered at, of which `between_seconds` are over. `now`: what they call for."""

    now: str
    pressure: float
    eases_below: float
    hold_seconds: float
    calm_seconds: float
    stuck_seconds: float
    between_seconds: float
    held_seconds: float


class Status(Answer, frozen=True, kw_only=True):
    """The whole pool at this moment."""

    version: str
    pid: int
    uptime_seconds: float
    level: str
    pressure: float
    budget_bytes: int
    used_bytes: int
    queue: QueueStatus
    workers: list[WorkerStatus]
    totals: Totals
    paused: str | None = None
    draining: bool = False
    loop_turn_p99_seconds: float = 0.0
    """Of all turns since the start, the upper edge of a bucket."""
    loop_turn_max_seconds: float = 0.0
    """The longest of the last ten seconds."""
    by_recipe: list[RecipeTotals] = []
    durations: Durations = Durations()
    recycles_by_reason: dict[str, int] = {}
    deaths_by_cause: dict[str, int] = {}
    """Ends of workers that were not planned."""
    level_held: HeldLevel | None = None
    """None: the level is what the figures of the moment call for."""


class Decision(Part, frozen=True, kw_only=True):
    """One decision with the figures it was taken on."""

    number: int
    at: float
    kind: str
    message: str
    slot: int | None = None
    batch: str | None = None
    path: str | None = None
    figures: dict[str, Any] = {}


class Decisions(Answer, frozen=True, kw_only=True):
    """Decisions, oldest first."""

    decisions: list[Decision]


class QuarantineEntry(Part, frozen=True, kw_only=True):
    """An image that is kept away from workers, with the evidence."""

    path: str
    at: float
    kind: str
    message: str
    recipe: str
    size_bytes: int
    mtime_ns: int
    evidence: dict[str, Any] = {}


class QuarantineEntries(Answer, frozen=True, kw_only=True):
    """What is in quarantine, newest first."""

    entries: list[QuarantineEntry]


class TempLease(Part, frozen=True, kw_only=True):
    """The temp directory (path token) of a live worker; its bytes include what is deleted and still open."""

    slot: int
    incarnation: int
    pid: int
    directory: str
    bytes: int
    files: int


class TempUsage(Answer, frozen=True, kw_only=True):
    """What this supervisor's workers hold below the temp root (path token), in bytes on the disk.

    `by_source` names the operation that made the files and adds up to `bytes`, of which `open_deleted_bytes` are
    in files that have no name any more; `reaped_bytes_total` counts since the supervisor started.
    """

    root: str
    bytes: int
    files: int
    open_deleted_bytes: int
    by_source: dict[str, int]
    leases: list[TempLease]
    reaped_bytes_total: int


class CacheReport(Answer, frozen=True, kw_only=True):
    """How the cache stands. `stats` is the JSON of `cache stats`, `steps` counts by step and policy, `verification`
    what `verify` found, `freed_bytes` what `trim` and `clear` took away."""

    stats: dict[str, Any]
    steps: list[dict[str, Any]]
    freed_bytes: int = 0
    verification: dict[str, Any] | None = None
    message: str = ""


class TempItem(Part, frozen=True, kw_only=True):
    """One stale directory (path token)."""

    path: str
    reason: str
    files: int
    bytes: int


class TempReport(Answer, frozen=True, kw_only=True):
    """What was reaped, or would be."""

    dry_run: bool
    reaped: list[TempItem]
    files: int
    bytes: int
    complaints: list[str] = []
