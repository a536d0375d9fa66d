"""What the hands tell the policy: facts, each with its figures, none with an opinion."""

import msgspec

from protocol.errors import Fault
from protocol.messages import AnyFromWorker, AnyRequest, CleanupAction
from supervisor.policy.items import BatchRecord, Item, Settlement


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the events."""


class Tick(Event, frozen=True, kw_only=True):
    """A deadline passed."""


# ---- processes -----------------------------------------------------------------------------------


class WorkerStarted(Event, frozen=True, kw_only=True):
    """The process exists; it is warm when its Ready arrives."""

    slot: int
    incarnation: int
    pid: int


class StartFailed(Event, frozen=True, kw_only=True):
    """No process could be made."""

    slot: int
    incarnation: int
    reason: str


class WorkerSaid(Event, frozen=True, kw_only=True):
    """A message of a worker whose identity is that of its slot and incarnation."""

    slot: int
    incarnation: int
    message: AnyFromWorker


class WorkerBabbled(Event, frozen=True, kw_only=True):
    """Bytes from a worker that are no message."""

    slot: int
    incarnation: int
    fault: str


class WorkerExited(Event, frozen=True, kw_only=True):
    """The process is gone and its memory is back. `exit_code` is negative for a signal, None where the
    template could not tell; `item`, `step` and `path` are what the flight recorder names, 0 when none."""

    slot: int
    incarnation: int
    exit_code: int | None
    item: int
    step: int
    path: str
    partial: bytes
    size_bytes: int = 0
    mtime_ns: int = 0
    version: str = ""
    """Size and mtime of the image and the recipe's operation versions, as the recorder names them."""
    oom_kills: int = 0
    """Kernel OOM kills counted in our cgroup (or on the machine) since the last exit."""


class PartStarted(Event, frozen=True, kw_only=True):
    """The process of a part exists."""

    name: str
    incarnation: int
    pid: int


class PartExited(Event, frozen=True, kw_only=True):
    """The process of a part is gone. `exit_code` is negative for a signal, None where there never was a process:
    then `reason` says why."""

    name: str
    incarnation: int
    exit_code: int | None
    reason: str = ""


class CleanedUp(Event, frozen=True, kw_only=True):
    """The supervisor's own actions of a clean-up are done."""

    number: int
    actions: list[CleanupAction]


class TemplateDied(Event, frozen=True, kw_only=True):
    """The process that workers are forked from is gone; the next start makes a new one."""

    reason: str


# ---- memory --------------------------------------------------------------------------------------


class WorkerSample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a worker from outside. `item` is what its flight recorder names, begun at `item_started`
    on the loop's clock; 0 when none. `rss_bytes` includes swap; None: the sample could not be taken."""

    slot: int
    incarnation: int
    rss_bytes: int | None
    shared_bytes: int
    item: int
    item_started: float
    items_done: int
    swap_bytes: int = 0
    """The part of `rss_bytes` that is in swap; looked at only while the machine swaps."""


class PartSample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a process of ours that is no worker. `role`: supervisor, template, or the name of a part."""

    role: str
    pid: int
    rss_bytes: int
    shared_bytes: int
    swap_bytes: int = 0


class Sampled(Event, frozen=True, kw_only=True):
    """One look at all workers and at the whole. `cgroup_used_bytes` is the working set where a cgroup limits
    us, else None; `budget_bytes` follows the limit."""

    workers: list[WorkerSample]
    own_bytes: int
    """The template's whole memory plus the private part of the supervisor's: shared pages count once."""
    cgroup_used_bytes: int | None
    budget_bytes: int
    available_bytes: int
    """Free memory of the machine (MemAvailable)."""
    swap_in_bytes_per_second: float = 0.0
    """What the machine reads back from swap."""
    parts: list[PartSample] = []
    """The supervisor, its template and its other parts, one by one."""
    budget_source: str = ""
    stall_share: float | None = None
    """PSI: the share of the last two seconds in which some task waited for memory; None: not told."""
    second_of_day: float | None = None
    """The machine's own time of the day, in seconds since its midnight; None: not told."""


class TasksStalled(Event, frozen=True, kw_only=True):
    """The kernel says that some task waited for memory for more than `watch.stall_share_brake` of two seconds. It says
    so once in two seconds, for as long as it is so."""


# ---- clients -------------------------------------------------------------------------------------


class RequestReceived(Event, frozen=True, kw_only=True):
    """A validated request of a client; `peer` is where the answer goes."""

    peer: bytes
    request: AnyRequest


class StopAsked(Event, frozen=True, kw_only=True):
    """SIGTERM, SIGINT or a client: drain and stop; `now`: the second one, or one that says so."""

    now: bool
    reason: str


class ReloadAsked(Event, frozen=True, kw_only=True):
    """SIGHUP: the settings file has changed."""


# ---- journal -------------------------------------------------------------------------------------


class BatchCreated(Event, frozen=True, kw_only=True):
    """The batch is on disk."""

    peer: bytes
    request_id: int | str
    record: BatchRecord
    resumed: bool


class ItemsInserted(Event, frozen=True, kw_only=True):
    """The chunk is on disk. `root` is the number its (root, prefix) got in the batch."""

    peer: bytes
    request_id: int | str
    batch: str
    chunk: int
    added: int
    known: int
    root: int
    root_path: str
    prefix: str


class JournalRefused(Event, frozen=True, kw_only=True):
    """The journal could not take a request, for a reason that is the caller's or the disk's; nothing of it was kept."""

    peer: bytes
    request_id: int | str
    code: str
    message: str
    was_insert: bool = False
    """It was an InsertItems that was refused."""
    fault: Fault = "caller"


class BatchSealed(Event, frozen=True, kw_only=True):
    """The batch is complete on disk, or abandoned."""

    peer: bytes
    request_id: int | str
    batch: str
    items: int
    ignored: int
    abandoned_at: float | None = None


class ItemsFetched(Event, frozen=True, kw_only=True):
    """Pending items, ascending by id; `exhausted` when there were fewer than asked for."""

    batch: str
    items: list[Item]
    exhausted: bool


class ItemsCommitted(Event, frozen=True, kw_only=True):
    """Outputs synced, rows committed."""

    settlements: list[Settlement]


class BatchChanged(Event, frozen=True, kw_only=True):
    """The batch's new state is on disk."""

    batch: str


class ItemsCancelled(Event, frozen=True, kw_only=True):
    """So many pending items were cancelled."""

    batch: str
    count: int


class ItemsRetried(Event, frozen=True, kw_only=True):
    """So many failed and quarantined items are pending again; `record` is the batch as it now stands."""

    peer: bytes
    request_id: int | str
    record: BatchRecord
    failed: int
    quarantined: int


class QuarantineForgotten(Event, frozen=True, kw_only=True):
    """`records` are the batches that got items back."""

    peer: bytes
    request_id: int | str
    known: bool
    records: list[BatchRecord]


class JournalStalled(Event, frozen=True, kw_only=True):
    """The journal cannot commit (disk full, I/O error); it keeps everything and tries again."""

    reason: str


class JournalRecovered(Event, frozen=True, kw_only=True):
    """The journal commits again."""


class BatchesDropped(Event, frozen=True, kw_only=True):
    """Retention dropped the record of these batches, or the large results of those."""

    dropped: list[tuple[str, str]] = []
    """(batch, reason)."""
    thinned: list[str] = []


class TempFilled(Event, frozen=True, kw_only=True):
    """The disk of the temp root is nearly full: nothing more is to be begun."""

    reason: str


class TempEased(Event, frozen=True, kw_only=True):
    """It has room again."""


class Remembered(Event, frozen=True, kw_only=True):
    """What an earlier supervisor wrote down of what it had learned (`KeepLearned`), as found; None: nothing was."""

    content: bytes | None


class Recovered(Event, frozen=True, kw_only=True):
    """What the state directory held at start: unfinished batches, and the items that were in progress at an
    unclean stop (with their counts already raised)."""

    records: list[BatchRecord]
    in_progress: list[Item]
    clean: bool
    history: bytes = b""
    """The ring file of the memory history, as it was found."""


AnyEvent = (
    Tick | WorkerStarted | StartFailed | WorkerSaid | WorkerBabbled | WorkerExited | TemplateDied | Sampled
    | RequestReceived | StopAsked | BatchCreated | ItemsInserted | JournalRefused | BatchSealed | ItemsFetched
    | ItemsCommitted | BatchChanged | ItemsCancelled | ItemsRetried | QuarantineForgotten | JournalStalled
    | JournalRecovered | Remembered | Recovered | BatchesDropped | TempFilled
    | PartStarted | PartExited | CleanedUp
    | TempEased | ReloadAsked | TasksStalled
)  # fmt: skip
