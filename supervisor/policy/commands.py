"""What the policy asks the hands to do. Each command's outcome comes back later as an event."""

from typing import Any, Literal

import msgspec

from protocol.messages import (
    AnyAnswer,
    AnyRequest,
    AnyToWorker,
    AskCache,
    BatchState,
    ChangeSettings,
    CleanupTier,
    Counts,
    Summary,
    TempReap,
    TempStats,
)
from supervisor.policy.items import BatchRecord, Charge, Settlement
from supervisor.policy.retention import Retention


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the commands."""


# ---- processes -----------------------------------------------------------------------------------


class StartWorker(Command, frozen=True, kw_only=True):
    """Fork a worker from the template. Answered by WorkerStarted or StartFailed. The roots (path tokens) are what
    its sandbox lets it read, and write below."""

    slot: int
    incarnation: int
    roots_read: list[str] = []
    roots_write: list[str] = []


class TellWorker(Command, frozen=True, kw_only=True):
    """Send a message to a worker."""

    slot: int
    incarnation: int
    message: AnyToWorker


class TerminateWorker(Command, frozen=True, kw_only=True):
    """SIGTERM: finish and exit."""

    slot: int
    incarnation: int


class KillWorker(Command, frozen=True, kw_only=True):
    """SIGKILL through the pidfd, then process_mrelease. Answered by WorkerExited."""

    slot: int
    incarnation: int


class LimitWorker(Command, frozen=True, kw_only=True):
    """Give a worker's own control group a limit, as back-stop. Not answered."""

    slot: int
    incarnation: int
    limit_bytes: int


class BuryWorker(Command, frozen=True, kw_only=True):
    """Everything a dead worker left: its unfinished output, its temp directory."""

    slot: int
    incarnation: int
    partial: bytes


class StartPart(Command, frozen=True, kw_only=True):
    """Start a part, a process of its own. Answered by PartStarted or PartExited."""

    name: str
    incarnation: int


class StopPart(Command, frozen=True, kw_only=True):
    """TERM, or KILL, to a part and the processes below it. Answered by PartExited."""

    name: str
    incarnation: int
    kill: bool


class CleanUp(Command, frozen=True, kw_only=True):
    """Run the supervisor's own actions (name, time limit) of a clean-up, off the loop. Answered by CleanedUp."""

    number: int
    tier: CleanupTier
    actions: list[tuple[str, float]]
    collect_cycles: int = 1
    whole: bool = True
    """Nobody works: the collection may take the oldest generation too, which holds the loop up."""


class KeepProtection(Command, frozen=True, kw_only=True):
    """Keep when emergency protection stopped supervisors here, for the next start; none: forget it."""

    stops: list[float]


class KeepTrace(Command, frozen=True, kw_only=True):
    """Append a line to the trace of the memory watch. Not answered."""

    line: bytes


class AskTemp(Command, frozen=True, kw_only=True):
    """Have the temp root's keeper answer a request of a client."""

    peer: bytes
    request: TempStats | TempReap


class CacheVerb(Command, frozen=True, kw_only=True):
    """Have the cache answer a request of a client."""

    peer: bytes
    request: AskCache


class TrimCache(Command, frozen=True, kw_only=True):
    """Shrink the cache's memory level to what this tier of clean-up leaves it."""

    tier: Literal["gentle", "moderate", "aggressive", "emergency"]


class TakeSample(Command, frozen=True, kw_only=True):
    """Look at all workers and at the whole, now. Answered by Sampled."""


class Reconfigure(Command, frozen=True, kw_only=True):
    """Read the settings anew, with these changes; `peer` is who asked, None for a signal. Answered by
    SettingsChanged."""

    peer: bytes | None
    request: ChangeSettings


class RenewTemplate(Command, frozen=True, kw_only=True):
    """End the template; its workers go with it, and the next start makes a new one. Answered by TemplateDied."""


class KeepLearned(Command, frozen=True, kw_only=True):
    """Write down what was learned (JSON) in the state directory, whole or not at all. Not answered."""

    content: bytes


class GiveBackMemory(Command, frozen=True, kw_only=True):
    """The supervisor's own freed memory goes back to the system: nothing is left to do."""


class KeepHistory(Command, frozen=True, kw_only=True):
    """Write these pieces of the history into its ring file, each at its place. Not answered."""

    pieces: list[tuple[int, bytes]]


# ---- clients -------------------------------------------------------------------------------------


class Reply(Command, frozen=True, kw_only=True):
    """Answer a client."""

    peer: bytes
    answer: AnyAnswer


class LiveBatch(msgspec.Struct, frozen=True):
    """What the pool knows of an unfinished batch before the journal does."""

    counts: Counts
    state: BatchState


class Query(Command, frozen=True, kw_only=True):
    """Let the journal answer a request that only reads; `live` are the unfinished batches by name."""

    peer: bytes
    request: AnyRequest
    live: dict[str, LiveBatch] = {}


class Note(Command, frozen=True, kw_only=True):
    """A decision with its figures: kept in the journal for `why`, published on the event socket."""

    kind: str
    message: str
    slot: int | None = None
    batch: str | None = None
    path: str | None = None
    figures: dict[str, Any] = {}


# ---- journal -------------------------------------------------------------------------------------


class CreateBatch(Command, frozen=True, kw_only=True):
    """Answered by BatchCreated. With `resume`, an unfinished batch of the same fingerprint is reopened
    instead; an existing batch of the same name is returned as it is."""

    peer: bytes
    request_id: int | str
    record: BatchRecord
    resume: bool


class InsertItems(Command, frozen=True, kw_only=True):
    """Answered by ItemsInserted or InsertFailed."""

    peer: bytes
    request_id: int | str
    batch: str
    chunk: int
    root: str
    prefix: str
    names: list[str]


class SealBatch(Command, frozen=True, kw_only=True):
    """No more items come. Answered by BatchSealed. With `abandoned_at` (seconds since the epoch) its client has not
    said so: it is closed in its place, unless it is already."""

    peer: bytes
    request_id: int | str
    batch: str
    ignored: int
    abandoned_at: float | None = None


class FetchItems(Command, frozen=True, kw_only=True):
    """Read pending items of a batch with an id above `after`. Answered by ItemsFetched."""

    batch: str
    after: int
    limit: int


class SettleItems(Command, frozen=True, kw_only=True):
    """Sync the outputs, then commit. Answered by ItemsCommitted."""

    settlements: list[Settlement]


class ChargeItems(Command, frozen=True, kw_only=True):
    """Keep the charges of items that go back to the queue. Not answered."""

    charges: list[Charge]


class ChangeBatch(Command, frozen=True, kw_only=True):
    """Keep a batch's state. Answered by BatchChanged."""

    batch: str
    state: BatchState
    paused: str | None = None
    finished_at: float | None = None
    summary: Summary | None = None


class CancelItems(Command, frozen=True, kw_only=True):
    """Cancel what is pending, except what is leased. Answered by ItemsCancelled."""

    batch: str
    except_ids: list[int]


class RetryItems(Command, frozen=True, kw_only=True):
    """Put failed (and quarantined) items back to pending, uncharged. Answered by ItemsRetried."""

    peer: bytes
    request_id: int | str
    batch: str
    quarantined: bool


class ForgetQuarantine(Command, frozen=True, kw_only=True):
    """Drop a remembered image; with `retry` its quarantined items become pending. Answered by QuarantineForgotten."""

    peer: bytes
    request_id: int | str
    path: str
    retry: bool


class SweepRetention(Command, frozen=True, kw_only=True):
    """Drop what retention no longer keeps, a bounded number of rows at a time. Answered by BatchesDropped, once
    for each step that dropped something."""

    retention: Retention


class StopLoop(Command, frozen=True, kw_only=True):
    """All is done: leave the loop with this exit code."""

    exit_code: int


class TellAlert(Command, frozen=True, kw_only=True):
    """Tell an alert to the command and the webhook of the settings. `at` is seconds since the epoch. Not answered."""

    alert: str
    emergency: bool
    note: Note
    at: float
