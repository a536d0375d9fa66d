"""What the pool itself gives up in a clean-up: thinned curves, halved batches, workers replaced one after the other,
parts that are not essential, and at last the fattest worker.

Where a level of memory is the cause the memory watch (`care`) does some of it by itself: nothing is done twice.
"""

from supervisor.policy import parts
from supervisor.policy.cleanup_actions import actions_of, note_action
from supervisor.policy.cleanup_state import Running
from supervisor.policy.commands import Command, Note
from supervisor.policy.levels import Level
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState
from supervisor.policy.stopping import kill_worker, recycle
from supervisor.policy.watch import Candidate, choose_victim

CURVE_LEFT = 20
"""Samples of a worker that thinning leaves it."""


def give_up(state: PoolState, running: Running, now: float) -> list[Command]:
    """Carries out the pool's own actions of the clean-up's tier."""
    commands: list[Command] = []
    for action in actions_of(running.tier):
        match action.name:
            case "thin histories":
                note_action(running, action.name, _thin(state))
            case "halve batches":
                _halve(state, running, now)
            case "replace workers":
                # From critical on the memory watch itself chooses, one victim a look (`care`).
                if running.cause != "level" or running.level < Level.CRITICAL:
                    running.to_replace = _worth_replacing(state)
            case "stop parts":
                held = sum(part.rss_bytes for part in state.parts.values() if not part.plan.essential)
                commands += parts.hold(state, now, f"clean-up {running.tier}")
                note_action(running, action.name, held)
            case "kill the fattest":
                commands += _kill(state, running, now)
    return commands + replace_next(state, running, now)


def _halve(state: PoolState, running: Running, now: float) -> None:
    """Where somebody asked for it: at a level of warning and above the memory watch itself halves them (`care`), and
    when the work is over the next batch should not pay for it."""
    if running.cause not in ("asked", "protection"):
        return
    for slot in state.slots:
        slot.batch_size.pressure(now, f"clean-up {running.tier}: {running.reason}")
    note_action(running, "halve batches", 0)


def _thin(state: PoolState) -> int:
    thinned = 0
    for slot in state.slots:
        if slot.worker is not None:
            while len(slot.worker.curve) > CURVE_LEFT:
                slot.worker.curve.popleft()
                thinned += 1
    return thinned * 120  # a tuple of a float and an integer, with its place


def _worth_replacing(state: PoolState) -> set[tuple[int, int]]:
    """Workers that hold enough above the slimmest for their replacement to give something."""
    least = state.settings.watch.smallest_allowance_bytes
    return {
        (slot.index, slot.worker.incarnation)
        for slot in state.slots
        if slot.worker is not None
        and slot.worker.state in ("IDLE", "BUSY")
        and slot.worker.items_done >= state.settings.watch.min_items_between_recycles
        and slot.worker.rss_bytes - state.slimmest_bytes() >= least
    }


def replace_next(state: PoolState, running: Running, now: float) -> list[Command]:
    """One at a time: the next goes when the last one's memory is back, and none any more once the level is left."""
    if running.cause == "level" and state.levels.acute < running.level:
        running.to_replace.clear()
    if any(
        slot.worker is not None and slot.worker.state in ("DRAINING", "STOPPING", "KILLING") for slot in state.slots
    ):
        return []
    for index, incarnation in sorted(running.to_replace):
        running.to_replace.discard((index, incarnation))
        slot = state.slots[index]
        worker = slot.worker
        if worker is None or worker.incarnation != incarnation or worker.state not in ("IDLE", "BUSY"):
            continue
        running.awaits.discard((index, incarnation))
        note_action(running, f"replace worker {index}", max(0, worker.rss_bytes - state.slimmest_bytes()))
        return recycle(state, slot, now, "cleanup", f"clean-up {running.tier}: {running.reason}")
    return []


def _kill(state: PoolState, running: Running, now: float) -> list[Command]:
    """The fattest, where a clean-up was asked for: at a level of emergency the memory watch itself chooses (`care`)."""
    if running.cause == "level" or state.levels.acute >= Level.EMERGENCY:
        return []
    candidates = [
        Candidate(
            slot=slot.index,
            rss_bytes=slot.worker.rss_bytes,
            sampled_at=slot.worker.sampled_at or 0.0,
            baseline_bytes=slot.worker.baseline_bytes,
            items_settled=slot.worker.items_done,
            leaving=slot.worker.state in ("DRAINING", "STOPPING"),
            dying=slot.worker.state == "KILLING",
        )
        for slot in state.slots
        if slot.worker is not None and slot.worker.baseline_bytes
    ]
    choice = choose_victim(Level.EMERGENCY, candidates, state.settings.watch, now)
    if choice.slot is None:
        return []
    slot = state.slots[choice.slot]
    assert slot.worker is not None
    running.awaits.discard((slot.index, slot.worker.incarnation))
    running.to_replace.discard((slot.index, slot.worker.incarnation))
    held = slot.worker.rss_bytes
    note_action(running, f"kill worker {slot.index}", held)
    message = f"killing worker {slot.index}, which holds {human(held)}: clean-up {running.tier}, {running.reason}"
    note = Note(kind="emergency", slot=slot.index, message=message, figures={"rss_bytes": held})
    return [note, *kill_worker(state, slot, "emergency", now)]
