"""The messages, both directions: frozen, typed, validated while they are decoded.

Every message is one JSON object in one ZeroMQ frame. `type` names it, `v` is PROTOCOL_VERSION, and a
client's `id` comes back in the answer. Four families:

* `Request`  client -> supervisor   (frontend socket, ROUTER; DEALER or REQ on the client's side)
* `Answer`   supervisor -> client   (one for each request, never unasked)
* `ToWorker` supervisor -> worker   (backend socket)
* `FromWorker` worker -> supervisor

Names of files are path tokens (`protocol.paths`). Sizes are bytes, durations seconds, dates seconds
since the epoch (UTC).
"""

from typing import Annotated, Any, Literal

import msgspec

PROTOCOL_VERSION = 1

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""A longer frame is refused unread. 1,000 names of 255 bytes take some 260 KB; 4 MiB leaves room."""

MAX_NAMES_A_CHUNK = 10_000
"""Items in one `add_items`: bounds what one message can make the supervisor hold."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""A count or a place in a row: what every JSON library carries exactly, and every journal holds."""

ItemState = Literal["pending", "leased", "done", "cached", "failed", "quarantined", "cancelled"]
BatchState = Literal["accepted", "running", "paused", "finished", "cancelled"]
WorkerState = Literal["STARTING", "IDLE", "BUSY", "DRAINING", "STOPPING", "KILLING", "GONE"]
ErrorKind = Literal["corrupt", "unsupported", "too_large", "too_many_pixels", "timeout", "crash", "memory", "io"]


def _tag(class_name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in class_name).lstrip("_")


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=_tag, forbid_unknown_fields=True):
    """Base of all; `type` is the class name in snake_case."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what messages are made of."""


# ---- recipes -------------------------------------------------------------------------------------


class Step(Part, frozen=True, forbid_unknown_fields=True):
    """One step of a recipe: an operation with its parameters (validated by the operation)."""

    operation: str
    parameters: dict[str, Any] = {}


class Recipe(Part, frozen=True, forbid_unknown_fields=True):
    """A named list of steps; the image is decoded once for all steps that can share a decode."""

    name: str
    steps: list[Step]


# ---- client -> supervisor ------------------------------------------------------------------------


class Request(Message, frozen=True, kw_only=True):
    """Base of the requests."""

    v: int = PROTOCOL_VERSION
    id: int | str = 0


class Hello(Request, frozen=True, kw_only=True):
    """Asks who is there. Answer: `Welcome`."""


class OpenBatch(Request, frozen=True, kw_only=True):
    """Opens a batch. Answer: `BatchOpened`, after the commit.

    `batch` may be chosen by the client: opening it again is then harmless. `fingerprint` names the job
    (paths, out, recipe, parameters): with `resume`, an unfinished batch of the same fingerprint is
    continued. `hold` keeps items from running until the batch is closed (so that a clash of outputs is
    found before anything runs).
    """

    batch: str | None = None
    recipe: str = "thumbs"
    out: str | None = None
    overwrite: bool = False
    strict: bool = False
    priority: int = 0
    hold: bool = False
    fingerprint: str | None = None
    resume: bool = False
    kind: str = "default"


class AddItems(Request, frozen=True, kw_only=True):
    """Adds items to an open batch. Answer: `ItemsAdded`, after the commit.

    Item i is the file `root`/`names[i]`; its outputs are named after `prefix`/`names[i]`. `chunk` numbers
    the messages of one batch from 0: a repeated number is acknowledged again and adds nothing.
    """

    batch: str
    chunk: Number
    root: str
    prefix: str = ""
    names: list[str]


class CloseBatch(Request, frozen=True, kw_only=True):
    """Says that all items of the batch were added. Answer: `BatchClosed`, after the commit."""

    batch: str
    ignored: Number = 0


class Progress(Request, frozen=True, kw_only=True):
    """Asks how far a batch is. Answer: `BatchProgress`."""

    batch: str


class ListBatches(Request, frozen=True, kw_only=True):
    """Answer: `Batches`, newest first; with `sizes` about how many bytes of the journal each takes."""

    limit: Number = 100
    sizes: bool = False


class Results(Request, frozen=True, kw_only=True):
    """Asks for settled items in the order they settled, of all states or only those named.

    Answer: `ResultsPage`; go on with its `next`.
    """

    batch: str
    after: Number = 0
    limit: Number = 1000
    states: list[ItemState] = []


class ImageHashes(Request, frozen=True, kw_only=True):
    """Asks what images look like: their perceptual hashes or vectors, of one batch or of all, a page at a time.

    `since` leaves out what was settled under that number or a lower one. Answer: `ImageHashesPage`; go on with its
    `next` as `after_batch` and `after`.
    """

    by: Literal["phash", "dhash", "vector"] = "phash"
    batch: str | None = None
    since: Number = 0
    after_batch: Number = 0
    after: Number = 0


class CancelBatch(Request, frozen=True, kw_only=True):
    """Cancels what has not been started. Answer: `BatchProgress`."""

    batch: str


class RetryBatch(Request, frozen=True, kw_only=True):
    """Puts failed (and with `quarantined`, quarantined) items back. Answer: `BatchProgress`."""

    batch: str
    quarantined: bool = False


class PauseWork(Request, frozen=True, kw_only=True):
    """Pauses a batch, or with no batch the whole pool; leases run out. Answer: `Done`."""

    batch: str | None = None
    reason: str = "asked by the user"
    seconds: float | None = None


class ResumeWork(Request, frozen=True, kw_only=True):
    """Ends a pause. Answer: `Done`."""

    batch: str | None = None


class StatusRequest(Request, frozen=True, kw_only=True):
    """Answer: `Status`."""


class Why(Request, frozen=True, kw_only=True):
    """Asks for the decisions about one worker (a slot) or one image (path token). Answer: `Decisions`."""

    slot: Number | None = None
    path: str | None = None
    limit: Number = 200


class Events(Request, frozen=True, kw_only=True):
    """Asks for the decisions after a number, oldest first; `after` -1 gives the last ones. Answer: `Decisions`."""

    after: Annotated[int, msgspec.Meta(ge=-1, le=2**53 - 1)] = -1
    limit: Number = 200


class QuarantineList(Request, frozen=True, kw_only=True):
    """Answer: `QuarantineEntries`."""

    path: str | None = None


class QuarantineDrop(Request, frozen=True, kw_only=True):
    """Forgets a quarantined image, or with `retry` also puts its items back to work. Answer: `Done`."""

    path: str
    retry: bool = False


class TempStats(Request, frozen=True, kw_only=True):
    """Asks what the workers' temp directories hold. Answer: `TempUsage`."""


class TempReap(Request, frozen=True, kw_only=True):
    """Has stale temp directories deleted, or with `dry_run` only told. Answer: `TempReport`, when it is done."""

    dry_run: bool = False


class AskCache(Request, frozen=True, kw_only=True):
    """Asks how the cache stands, after doing something about it: `trim` to `size_bytes`, `clear`, `verify` (and with
    `repair` drop what is damaged), change the `policy`. Answer: `CacheReport`, when it is done."""

    verb: Literal["stats", "trim", "clear", "verify", "policy"] = "stats"
    size_bytes: int | None = None
    repair: bool = False
    policy: str | None = None


class Stop(Request, frozen=True, kw_only=True):
    """Drains and stops the supervisor; `now` skips the drain. Answer: `Done` at once."""

    now: bool = False


# ---- supervisor -> client ------------------------------------------------------------------------


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


# ---- supervisor -> worker ------------------------------------------------------------------------


class ToWorker(Message, frozen=True, kw_only=True):
    """Base of what a worker is told."""


class Root(Part, frozen=True, array_like=True):
    """A submitted directory and the prefix of the stems below it."""

    root: str
    prefix: str


class Granted(Part, frozen=True, array_like=True):
    """One item of a lease.

    `owned`: an output of that name is known to be ours and may be replaced. `shunned`: the image was
    quarantined when it had this size, mtime and recipe version; unchanged, it is not opened again.
    """

    id: int
    root: int
    stem: str
    owned: bool = False
    shunned: tuple[int, int, str] | None = None


class Grant(ToWorker, frozen=True, kw_only=True):
    """A lease: these items, in this order, under one recipe.

    `memory_bytes` is what one item may take above the worker's baseline: an item that is predicted to
    need more is not decoded but reported `deferred` with its figure.
    """

    lease: int
    batch: str
    recipe: Recipe
    out: str | None
    overwrite: bool
    strict: bool
    submitted_at: float
    memory_bytes: int
    cache: bool = False
    """Whether the results are to be kept: the worker then hashes the image and says what each step made."""
    roots: list[Root]
    items: list[Granted]


class Shrink(ToWorker, frozen=True, kw_only=True):
    """Keep at most `keep` items after the one in progress and hand the rest of the lease back."""

    lease: int
    keep: int


class Trim(ToWorker, frozen=True, kw_only=True):
    """Give memory back between items: gc, malloc_trim, native caches. Answer: `Trimmed`."""


class Quit(ToWorker, frozen=True, kw_only=True):
    """Finish the item in progress, hand the rest back, exit with 0."""


# ---- worker -> supervisor ------------------------------------------------------------------------


class FromWorker(Message, frozen=True, kw_only=True):
    """Base of what a worker says."""


class Memory(Part, frozen=True, array_like=True):
    """A worker's own figures, in bytes: resident, Python heap, native caches of libraries."""

    rss_bytes: int
    heap_bytes: int
    native_bytes: int


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


class Report(FromWorker, frozen=True, kw_only=True):
    """Items of a lease that are over, those handed back unstarted, and whether the lease is finished."""

    slot: int
    incarnation: int
    lease: int
    items: list[ItemReport]
    handed_back: list[int]
    finished: bool
    memory: Memory


class Trimmed(FromWorker, frozen=True, kw_only=True):
    """What a trim gave back, by means, in bytes."""

    slot: int
    incarnation: int
    before_bytes: int
    after_bytes: int
    seconds: float


AnyRequest = (
    Hello | OpenBatch | AddItems | CloseBatch | Progress | ListBatches | Results | ImageHashes
    | CancelBatch | RetryBatch
    | PauseWork | ResumeWork | StatusRequest | Why | Events | QuarantineList | QuarantineDrop | TempStats | TempReap
    | AskCache | Stop
)  # fmt: skip
AnyAnswer = (
    Problem | Welcome | BatchOpened | ItemsAdded | BatchClosed | BatchProgress | Batches | ResultsPage | ImageHashesPage
    | Done
    | Status | Decisions | QuarantineEntries | TempUsage | TempReport | CacheReport
)  # fmt: skip
AnyToWorker = Grant | Shrink | Trim | Quit
AnyFromWorker = Ready | Heartbeat | Report | Trimmed
