"""What was seen, kept so that it can be decided again: a trace is the looks of the memory watch, a line each.

A look holds what the policy decides from: the sample, and of each worker what its own reports told (baseline, items,
heap). Replaying feeds the looks to the same functions that decided then (levels, limits, judge, one victim, clean-ups,
protection) with the state rebuilt from the trace at each look, and gives their decisions. A lease that was granted
for one large image is not in a trace: its worker is judged by the limits of an ordinary one.
"""

from collections.abc import Iterable, Iterator
from random import Random

import msgspec

from protocol.messages import WorkerState
from supervisor.policy import care, cleanup, parts, protection
from supervisor.policy.cleanup_settings import CleanupSettings
from supervisor.policy.commands import CleanUp, Command, KeepTrace, KillWorker, Note
from supervisor.policy.events import CleanedUp, Sampled
from supervisor.policy.state import PoolSettings, PoolState
from supervisor.policy.watch_settings import WatchSettings
from supervisor.policy.worker import Worker


class TraceHead(msgspec.Struct, frozen=True, kw_only=True, tag="head"):
    """What it was decided with. A trace has one for each start of a supervisor."""

    workers: int
    budget_bytes: int
    item_timeout_seconds: float
    watch: WatchSettings
    cleanup: CleanupSettings
    protection: bool
    epoch_offset_seconds: float


class TraceWorker(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of a worker beside its sample."""

    slot: int
    incarnation: int
    state: WorkerState
    baseline_bytes: int
    items_done: int
    heap_bytes: int
    native_bytes: int
    progress_at: float


class TraceLook(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """One look, at a time of the loop's clock."""

    at: float
    sampled: Sampled
    workers: list[TraceWorker]


TraceLine = TraceHead | TraceLook


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of a replay; `at` is seconds since the epoch."""

    at: float
    note: Note


def keep_head(state: PoolState) -> list[Command]:
    """Returns the command that begins a trace; nothing where none is kept."""
    settings = state.settings
    if not settings.trace:
        return []
    head = TraceHead(
        workers=settings.workers,
        budget_bytes=settings.budget_bytes,
        item_timeout_seconds=settings.item_timeout_seconds,
        watch=settings.watch,
        cleanup=settings.cleanup,
        protection=settings.protection,
        epoch_offset_seconds=settings.epoch_offset_seconds,
    )
    return [KeepTrace(line=msgspec.json.encode(head))]


def keep_look(state: PoolState, event: Sampled, now: float) -> list[Command]:
    """Returns the command that keeps a look, before anything is decided from it; nothing where no trace is kept."""
    if not state.settings.trace:
        return []
    workers = [
        TraceWorker(
            slot=worker.slot,
            incarnation=worker.incarnation,
            state=worker.state,
            baseline_bytes=worker.baseline_bytes,
            items_done=worker.items_done,
            heap_bytes=worker.heap_bytes,
            native_bytes=worker.native_bytes,
            progress_at=worker.progress_at,
        )
        for worker in (slot.worker for slot in state.slots)
        if worker is not None
    ]
    return [KeepTrace(line=msgspec.json.encode(TraceLook(at=now, sampled=event, workers=workers)))]


def read_line(line: bytes) -> TraceLine:
    """Returns a line of a trace. Raises ValueError for one that is none."""
    try:
        found: TraceLine = msgspec.json.decode(line, type=TraceLine)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a line of a trace: {error}") from error
    return found


def replay(lines: Iterable[TraceLine]) -> Iterator[Replayed]:
    """Yields what would be decided at each look. Raises ValueError for a look before any head."""
    state: PoolState | None = None
    for line in lines:
        if isinstance(line, TraceHead):
            state = _begin(line)
        elif state is None:
            raise ValueError("the trace has no head: its beginning is missing")
        else:
            for note in _decide(state, line):
                yield Replayed(at=state.epoch(line.at), note=note)


def _begin(head: TraceHead) -> PoolState:
    settings = PoolSettings(
        workers=head.workers,
        recipes={},
        watch=head.watch,
        cleanup=head.cleanup,
        protection=head.protection,
        budget_bytes=head.budget_bytes,
        item_timeout_seconds=head.item_timeout_seconds,
        epoch_offset_seconds=head.epoch_offset_seconds,
    )
    return PoolState(settings, Random(0), 0.0)


def _decide(state: PoolState, look: TraceLook) -> list[Note]:
    if state.draining:
        return []
    _rebuild(state, look)
    commands = care.on_sampled(state, look.sampled, look.at)
    commands += parts.attend(state, look.at)
    commands += protection.attend(state, look.at)
    commands += cleanup.attend(state, look.at)
    for command in commands:
        if isinstance(command, CleanUp):
            cleanup.on_cleaned_up(state, CleanedUp(number=command.number, actions=[]), look.at)
    told = [command for command in commands if isinstance(command, Note)]
    return told + [_as_note(command) for command in commands if isinstance(command, KillWorker)]


def _as_note(command: KillWorker) -> Note:
    return Note(kind="kill", slot=command.slot, message=f"worker {command.slot} is killed")


def _rebuild(state: PoolState, look: TraceLook) -> None:
    """The workers as they were: what the replay decided about them did not happen."""
    known = {worker.slot: worker for worker in look.workers}
    for slot in state.slots:
        seen = known.get(slot.index)
        if seen is None:
            slot.worker = None
            continue
        if slot.worker is None or slot.worker.incarnation != seen.incarnation:
            slot.worker = Worker(slot=slot.index, incarnation=seen.incarnation, started_at=look.at, deadline=None)
            slot.incarnation = seen.incarnation
        worker = slot.worker
        if worker.trimming and look.at - worker.trimmed_at >= state.settings.cleanup.verify_seconds:
            worker.trimming = False
        worker.state, worker.baseline_bytes, worker.items_done = seen.state, seen.baseline_bytes, seen.items_done
        worker.heap_bytes, worker.native_bytes = seen.heap_bytes, seen.native_bytes
        worker.progress_at, worker.deadline, worker.cause = seen.progress_at, None, None
    if state.cleanups.running is not None:
        # In the trace nobody answers: what the workers gave shows in the samples.
        state.cleanups.running.awaits.clear()
