"""The life of one worker, as a table.

A worker is a process in a slot. It is STARTING until its Ready arrives, IDLE while it holds no lease, BUSY
while it does. DRAINING means that it was asked to finish the item in progress and hand the rest back;
STOPPING that TERM was sent; KILLING that KILL was sent; GONE that the process has been waited for and its
memory is back. Nothing leads out of GONE: what comes next in the slot is another worker.

Every stop takes one path (TERM, a deadline, KILL); only the hard limit, an item's time limit, an emergency
and a broken protocol go to KILL at once. What is wanted (`Slot.wanted`) is kept apart from what is.

Every cell of state x event is decided. ILLEGAL means that the event cannot happen unless somebody lies:
nothing changes and IllegalEvent is raised. If the event came off the wire, the caller kills the liar.
"""

from collections import deque
from enum import Enum

import msgspec

from protocol.messages import WorkerState


class WorkerEvent(Enum):
    """What can happen to a worker."""

    READY = "Ready"
    GRANTED = "Granted"
    SETTLED = "Settled"
    STOP_ASKED = "StopAsked"
    DEADLINE_PASSED = "DeadlinePassed"
    KILL_ASKED = "KillAsked"
    EXITED = "Exited"


class Effect(Enum):
    """What the transition makes the supervisor do."""

    NOTHING = "nothing"
    DRAIN = "tell it to finish the item in progress"
    TERMINATE = "send TERM"
    KILL = "send KILL"
    REPORT_STUCK = "send KILL again and say that it does not die"
    LOSE_LEASE = "its lease, if any, is lost"


class Cell(msgspec.Struct, frozen=True):
    """One cell of the table."""

    state: WorkerState
    effect: Effect = Effect.NOTHING


CURVE_SAMPLES = 24
ILLEGAL: None = None

_READY, _GRANTED, _SETTLED = WorkerEvent.READY, WorkerEvent.GRANTED, WorkerEvent.SETTLED
_STOP, _LATE, _KILL, _EXITED = (
    WorkerEvent.STOP_ASKED,
    WorkerEvent.DEADLINE_PASSED,
    WorkerEvent.KILL_ASKED,
    WorkerEvent.EXITED,
)
_STOPPING = Cell("STOPPING", Effect.TERMINATE)
_KILLING = Cell("KILLING", Effect.KILL)
_GONE = Cell("GONE", Effect.LOSE_LEASE)

TABLE: dict[WorkerState, dict[WorkerEvent, Cell | None]] = {
    "STARTING": {
        _READY: Cell("IDLE"),
        _GRANTED: ILLEGAL,
        _SETTLED: ILLEGAL,
        _STOP: _STOPPING,
        _LATE: _KILLING,
        _KILL: _KILLING,
        _EXITED: _GONE,
    },
    "IDLE": {
        _READY: ILLEGAL,
        _GRANTED: Cell("BUSY"),
        _SETTLED: ILLEGAL,
        _STOP: _STOPPING,
        _LATE: _STOPPING,
        _KILL: _KILLING,
        _EXITED: _GONE,
    },
    "BUSY": {
        _READY: ILLEGAL,
        _GRANTED: ILLEGAL,
        _SETTLED: Cell("IDLE"),
        _STOP: Cell("DRAINING", Effect.DRAIN),
        _LATE: _KILLING,
        _KILL: _KILLING,
        _EXITED: _GONE,
    },
    "DRAINING": {
        _READY: ILLEGAL,
        _GRANTED: ILLEGAL,
        _SETTLED: _STOPPING,
        _STOP: Cell("DRAINING"),
        _LATE: _KILLING,
        _KILL: _KILLING,
        _EXITED: _GONE,
    },
    "STOPPING": {
        # A Ready or a last report may have been under way when TERM was sent.
        _READY: Cell("STOPPING"),
        _GRANTED: ILLEGAL,
        _SETTLED: Cell("STOPPING"),
        _STOP: Cell("STOPPING"),
        _LATE: _KILLING,
        _KILL: _KILLING,
        _EXITED: _GONE,
    },
    "KILLING": {
        _READY: Cell("KILLING"),
        _GRANTED: ILLEGAL,
        _SETTLED: Cell("KILLING"),
        _STOP: Cell("KILLING"),
        _LATE: Cell("KILLING", Effect.REPORT_STUCK),
        _KILL: Cell("KILLING"),
        _EXITED: _GONE,
    },
    "GONE": dict.fromkeys(WorkerEvent, ILLEGAL),
}


class IllegalEvent(Exception):
    """An event that the worker's state does not allow."""

    def __init__(self, slot: int, state: WorkerState, event: WorkerEvent) -> None:
        super().__init__(f"worker {slot} is {state}: {event.value} is not possible")


class Worker(msgspec.Struct, kw_only=True):
    """The process now in a slot. Times are on the loop's clock, in seconds."""

    slot: int
    incarnation: int
    state: WorkerState = "STARTING"
    pid: int | None = None
    started_at: float
    deadline: float | None
    """When the state has lasted too long; None: it may last for ever."""
    progress_at: float = 0.0
    """When it last began or finished an item."""
    cause: str | None = None
    """Why we ended it, set before the signal is sent and never overwritten by what the exit looks like."""
    lease: int | None = None
    items_done: int = 0
    baseline_bytes: int = 0
    boundary_bytes: list[int] = []
    """RSS at its first item boundaries, from which the warm baseline is taken."""
    rss_bytes: int = 0
    swap_bytes: int = 0
    shared_bytes: int = 0
    peak_bytes: int = 0
    heap_bytes: int = 0
    native_bytes: int = 0
    kept_bytes: int = 0
    """What its C library keeps free."""
    excused_at: float = 0.0
    """When its item was given its time anew, because nobody had looked for long; 0: never."""
    sampled_at: float | None = None
    item: int = 0
    """The item its flight recorder named at the last sample; 0: none."""
    curve: deque[tuple[float, int]] = msgspec.field(default_factory=lambda: deque(maxlen=CURVE_SAMPLES))
    """The last samples (time, RSS bytes): evidence when it dies."""
    kernel_limit_bytes: int = 0
    """Of its own control group; 0: none was set."""
    trimming: bool = False
    trimmed_at: float = -1e9
    roots_read: frozenset[str] = frozenset()
    """Path tokens that its sandbox lets it read."""
    roots_write: frozenset[str] = frozenset()
    sandbox: str | None = None
    """The layers that confine it, as its Ready told them."""

    learned: dict[str, int] = {}
    """By recipe: the revision of the factors it was told."""

    @property
    def private_bytes(self) -> int:
        """What would come back if it died: RSS without the pages it shares with the template."""
        return max(0, self.rss_bytes - self.shared_bytes)


def step(worker: Worker, event: WorkerEvent) -> Effect:
    """Moves the worker along its table and returns what is to be done. Raises IllegalEvent, and then changes
    nothing."""
    cell = TABLE[worker.state][event]
    if cell is None:
        raise IllegalEvent(worker.slot, worker.state, event)
    worker.state = cell.state
    return cell.effect
