"""An idle pool gives its memory back.

After `idle_shrink_seconds` without work the pool shrinks to `min_workers`: the workers that hold most are let go, and
those that stay, and the supervisor, trim. Work that comes back finds the template warm: a worker is forked in some
15 ms, so what rests is woken when there is something to do, not kept for it.

A slot that rests is not wanted; its place in the pool, what it learned and its limits stay.
"""

from protocol.messages import Trim
from supervisor.policy.commands import Command, GiveBackMemory, Note, TellWorker
from supervisor.policy.counted import counted
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.stopping import stop_worker


def rest_or_wake(state: PoolState, now: float) -> list[Command]:
    """Wakes slots for work that waits, or lets those go that have had none for long."""
    if state.draining:
        return []
    if state.leases or (state.queue.pending and state.off_hours is None):
        state.idle_since = None
        return _wake(state, now)
    if state.idle_since is None:
        state.idle_since = now
    patience = state.settings.idle_shrink_seconds
    if not patience:
        return _wanted_again([slot for slot in state.slots if slot.resting], now)
    if now - state.idle_since < patience:
        return []
    return _rest(state, now)


def idle_deadline(state: PoolState) -> float | None:
    """Returns when the pool shrinks if nothing comes; None: it does not, or has."""
    patience = state.settings.idle_shrink_seconds
    if state.idle_since is None or not patience or state.draining or not _spare(state):
        return None
    return state.idle_since + patience


def _wake(state: PoolState, now: float) -> list[Command]:
    """Wakes as many as there are items that no worker at hand will take. While paused, nobody is woken."""
    resting = [slot for slot in state.slots if slot.resting]
    if not resting or state.stands_still:
        return []
    waiting = sum(batch.pending for batch in state.queue.runnable())
    at_hand = sum(1 for slot in state.slots if slot.wanted and (slot.worker is None or slot.worker.state != "BUSY"))
    return _wanted_again(resting[: max(0, waiting - at_hand)], now)


def _wanted_again(slots: list[Slot], now: float) -> list[Command]:
    for slot in slots:
        slot.resting, slot.wanted, slot.note = False, True, None
        if slot.worker is None:
            slot.start_at = now
    if not slots:
        return []
    return [
        Note(kind="woken", message=f"started again: {counted(len(slots), 'worker')}", figures={"workers": len(slots)})
    ]


def _spare(state: PoolState) -> list[Slot]:
    """Returns the slots that can rest now: empty ones first, then those whose idle worker holds most."""
    serving = [slot for slot in state.slots if slot.wanted]
    able = [slot for slot in serving if slot.worker is None or slot.worker.state == "IDLE"]
    able.sort(key=lambda slot: slot.worker.private_bytes if slot.worker is not None else 1 << 60, reverse=True)
    return able[: max(0, len(serving) - state.settings.min_workers)]


def _rest(state: PoolState, now: float) -> list[Command]:
    spare = _spare(state)
    if not spare:
        return []
    commands: list[Command] = []
    freed = 0
    for slot in spare:
        freed += slot.worker.private_bytes if slot.worker is not None else 0
        slot.resting, slot.wanted, slot.start_at = True, False, None
        slot.note = "rests until there is work"
        commands += stop_worker(state, slot, "rest", now)
    for slot in state.slots:
        if slot.wanted and slot.worker is not None and slot.worker.state == "IDLE" and not slot.worker.trimming:
            slot.worker.trimming = True
            slot.worker.trimmed_at = now
            trim = TellWorker(slot=slot.index, incarnation=slot.worker.incarnation, message=Trim())
            commands.append(trim)
    note = Note(
        kind="rest",
        message=f"nothing to do for {state.settings.idle_shrink_seconds:.0f} s: letting "
        f"{counted(len(spare), 'worker')} go gives back about {human(freed)}, until there is work again",
        figures={"workers": len(spare), "private_bytes": freed},
    )
    return [note, *commands, GiveBackMemory()]
