"""Ending workers: recycling one, killing one, draining the pool.

Every planned end goes through the worker's table: asked to stop, a deadline, KILL. The cause is written down
before any signal is sent.
"""

from protocol.errors import Refused, UsageError
from protocol.messages import Quit
from supervisor.policy.commands import ChangeBatch, Command, KillWorker, Note, StopLoop, TellWorker, TerminateWorker
from supervisor.policy.parts import all_gone, stop_all
from supervisor.policy.prediction.keeping import keep
from supervisor.policy.protection_note import forget_after_calm
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.worker import Effect, WorkerEvent, step


def carry_out(state: PoolState, slot: Slot, effect: Effect, now: float) -> list[Command]:
    """Turns the effect of a transition into commands, and sets the deadline of the new state."""
    worker = slot.worker
    assert worker is not None
    who = {"slot": slot.index, "incarnation": worker.incarnation}
    settings = state.settings
    match effect:
        case Effect.NOTHING | Effect.LOSE_LEASE:
            return []
        case Effect.DRAIN:
            worker.deadline = now + max(settings.drain_seconds, settings.item_timeout_seconds)
            return [TellWorker(**who, message=Quit())]
        case Effect.TERMINATE:
            worker.deadline = now + settings.terminate_seconds
            return [TerminateWorker(**who)]
        case Effect.KILL:
            worker.deadline = now + settings.kill_seconds
            return [KillWorker(**who)]
        case Effect.REPORT_STUCK:
            worker.deadline = now + settings.kill_seconds
            slot.note = "does not die after SIGKILL: it hangs in the kernel (a dead disk or network share?)"
            return [KillWorker(**who), Note(kind="stuck", slot=slot.index, message=f"worker {slot.index} {slot.note}")]


def stop_worker(state: PoolState, slot: Slot, cause: str, now: float) -> list[Command]:
    """Asks a worker to finish its item and end, for this cause."""
    worker = slot.worker
    if worker is None:
        return []
    worker.cause = worker.cause or cause
    return carry_out(state, slot, step(worker, WorkerEvent.STOP_ASKED), now)


def kill_worker(state: PoolState, slot: Slot, cause: str, now: float) -> list[Command]:
    """Ends a worker at once, for this cause; a planned end that had begun gives way to it."""
    worker = slot.worker
    if worker is None or worker.state == "KILLING":
        return []
    worker.cause = cause
    state.totals["kills"] += 1
    lease = state.lease_of(worker)
    batch = state.queue.batches.get(lease.batch if lease is not None else slot.last_batch or "")
    if batch is not None:
        batch.kills += 1
    return carry_out(state, slot, step(worker, WorkerEvent.KILL_ASKED), now)


def recycle(
    state: PoolState, slot: Slot, now: float, reason: str, why: str, figures: dict[str, object] | None = None
) -> list[Command]:
    """Replaces a worker after the item in progress. `reason` is the word it is counted under, `why` the sentence."""
    worker = slot.worker
    if worker is None or worker.state not in ("IDLE", "BUSY"):
        return []
    slot.recycles += 1
    state.totals["recycles"] += 1
    state.tallies.recycled(reason)
    batch = state.queue.batches.get(slot.last_batch or "")
    if batch is not None:
        batch.recycles[reason] = batch.recycles.get(reason, 0) + 1
    note = Note(
        kind="recycle",
        slot=slot.index,
        batch=slot.last_batch,
        message=f"worker {slot.index} is recycled: {why.removeprefix(f'worker {slot.index}: ')}",
        figures={
            "reason": reason,
            "rss_bytes": worker.rss_bytes,
            "baseline_bytes": worker.baseline_bytes,
            **(figures or {}),
        },
    )
    return [note, *stop_worker(state, slot, "recycle", now)]


def recycle_asked(state: PoolState, index: int, now: float) -> list[Command]:
    """Replaces the worker that a client names. Raises UsageError for a slot there is not, Refused where nothing can be
    replaced."""
    if index >= len(state.slots):
        raise UsageError(f"there is no slot {index}; the slots are 0 to {len(state.slots) - 1}")
    slot = state.slots[index]
    commands = recycle(state, slot, now, "asked", "asked by a client")
    if not commands:
        what = slot.worker.state if slot.worker is not None else "not there yet"
        raise Refused(f"worker {index} is {what}; only one that is IDLE or BUSY can be replaced")
    return commands


def drain_pool(state: PoolState, now: float, at_once: bool, reason: str) -> list[Command]:
    """Begins (or, at once, hurries) the end of the pool: nothing is granted any more, workers finish their item."""
    commands: list[Command] = []
    if not state.draining:
        state.draining = True
        state.drain_deadline = now + state.settings.drain_seconds
        commands.append(
            Note(kind="drain", message=f"draining: {reason}", figures={"seconds": state.settings.drain_seconds})
        )
        commands += stop_all(state, now)
        for slot in state.slots:
            slot.wanted = False
            slot.start_at = None
            commands += stop_worker(state, slot, "drain", now)
            if slot.worker is not None and slot.worker.deadline is not None:
                slot.worker.deadline = min(slot.worker.deadline, state.drain_deadline)
    if at_once:
        state.drain_deadline = now
        for slot in state.slots:
            if slot.worker is not None and slot.worker.state not in ("KILLING", "GONE"):
                slot.worker.cause = slot.worker.cause or "drain"
                commands += carry_out(state, slot, step(slot.worker, WorkerEvent.KILL_ASKED), now)
    return commands


def finish(state: PoolState, now: float) -> list[Command]:
    """Leaves the loop once nobody works any more and every verdict is on the disk. A disk that refuses is not waited
    for beyond the deadline: what was accepted is there already, what was done meanwhile is done again."""
    if not state.draining or state.exit_code is not None:
        return []
    if any(slot.worker is not None for slot in state.slots) or not all_gone(state):
        return []
    late = state.drain_deadline is None or now >= state.drain_deadline
    if not late and (state.changes or any(batch.settling for batch in state.queue.batches.values())):
        return []
    state.exit_code = state.stop_code
    return [
        *_keep_summaries(state, now),
        *keep(state, now, last=True),
        *forget_after_calm(state, now),
        StopLoop(exit_code=state.stop_code),
    ]


def _keep_summaries(state: PoolState, now: float) -> list[Command]:
    """Keeps what unfinished batches took so far: the supervisor that resumes them adds to it."""
    return [
        ChangeBatch(
            batch=batch.name,
            state="paused" if batch.paused is not None else "running",
            paused=batch.paused,
            summary=batch.so_far(now, state.budget_bytes),
        )
        for batch in state.queue.batches.values()
        if batch.began_at is not None and not batch.closing and not batch.cancelled
    ]
