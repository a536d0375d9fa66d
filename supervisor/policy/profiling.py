"""Profiles of running workers: at most one a slot, bounded in time, ended whatever becomes of the worker.

The worker begins to trace between two images and ends it between two others; so the end waits for the image in
progress, whose time is limited. A worker that leaves or dies meanwhile takes its profile with it, and whoever asked
is told. The trace costs memory and time in that worker alone; its limits hold as always.
"""

from protocol import messages as m
from protocol.errors import Refused, UsageError
from supervisor.policy.commands import Command, Note, Reply, TellWorker
from supervisor.policy.state import PoolState, Profiling, Slot

SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 600.0
MOST_LINES = 500
GRACE_SECONDS = 10.0
"""For the snapshot itself, which takes milliseconds for each ten thousand blocks, on a loaded machine."""


def begin(state: PoolState, peer: bytes, request: m.MemoryProfile, now: float) -> list[Command]:
    """Has a worker trace. Raises UsageError and Refused with the reason."""
    if not 0 <= request.slot < len(state.slots):
        raise UsageError(f"there is no slot {request.slot}: they are numbered 0 to {len(state.slots) - 1}")
    if not SHORTEST_SECONDS <= request.seconds <= LONGEST_SECONDS:
        raise UsageError(f"{request.seconds:g} s: a profile takes {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} seconds")
    if not 1 <= request.top <= MOST_LINES:
        raise UsageError(f"{request.top} lines: 1 to {MOST_LINES} can be told")
    worker = state.slots[request.slot].worker
    if worker is None or worker.state not in ("IDLE", "BUSY"):
        what = "resting or starting" if worker is None else worker.state
        raise Refused(f"the worker of slot {request.slot} cannot be profiled now: it is {what}")
    if request.slot in state.profiles:
        raise Refused(f"the worker of slot {request.slot} is being profiled already")
    state.profile_number += 1
    state.profiles[request.slot] = Profiling(
        number=state.profile_number,
        incarnation=worker.incarnation,
        peer=peer,
        request_id=request.id,
        top=request.top,
        ends_at=now + request.seconds,
    )
    message = m.Profile(number=state.profile_number, action="begin")
    note = Note(
        kind="profile",
        slot=request.slot,
        message=f"worker {request.slot} is profiled for {request.seconds:g} s: its Python code runs slower meanwhile",
    )
    return [note, TellWorker(slot=request.slot, incarnation=worker.incarnation, message=message)]


def attend(state: PoolState, now: float) -> list[Command]:
    """Ends the profiles whose time is over, and gives up those whose worker is gone or does not answer."""
    commands: list[Command] = []
    for slot, profile in list(state.profiles.items()):
        worker = state.slots[slot].worker
        if worker is None or worker.incarnation != profile.incarnation:
            commands += _give_up(state, slot, "it ended meanwhile ('supervisor why' tells the reason)")
        elif profile.ending and now >= profile.ends_at:
            commands += _give_up(state, slot, "it did not answer in time")
        elif now >= profile.ends_at:
            profile.ending = True
            profile.ends_at = now + state.settings.item_timeout_seconds + GRACE_SECONDS
            message = m.Profile(number=profile.number, action="end", top=profile.top)
            commands.append(TellWorker(slot=slot, incarnation=profile.incarnation, message=message))
    return commands


def next_deadline(state: PoolState) -> float | None:
    """Returns when a profile is to be ended or given up."""
    return min((profile.ends_at for profile in state.profiles.values()), default=None)


def on_profiled(state: PoolState, slot: Slot, told: m.Profiled) -> list[Command]:
    """A worker tells: whoever asked is answered. One that nobody waits for any more is dropped."""
    profile = state.profiles.get(slot.index)
    if profile is None or profile.number != told.number:
        return []
    del state.profiles[slot.index]
    answer = m.ProfileReport(
        id=profile.request_id,
        slot=slot.index,
        pid=slot.worker.pid or 0 if slot.worker is not None else 0,
        seconds=told.seconds,
        items=told.items,
        grown_bytes=told.grown_bytes,
        grown_blocks=told.grown_blocks,
        tracer_bytes=told.tracer_bytes,
        lines=told.lines[: profile.top],
    )
    return [Reply(peer=profile.peer, answer=answer)]


def _give_up(state: PoolState, slot: int, why: str) -> list[Command]:
    profile = state.profiles.pop(slot)
    message = f"the worker of slot {slot} could not be profiled: {why}"
    problem = m.Problem(id=profile.request_id, code="profile", fault="machine", message=message, exit_code=4)
    return [Reply(peer=profile.peer, answer=problem)]
