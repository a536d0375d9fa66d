"""Parts of the supervisor that are processes of their own: the gateway, a dashboard, what fetches ahead.

The pool works without any of them, so each says whether it is essential. In an emergency the others are stopped
and held back until it is over (below the level critical, which has its own delay); an essential one never is. One
that dies is started again at once, and later and later when it does so again and again (`restart`, the same rule
as for workers: a part that lived for a whole period has worked). One that holds more than its limit is replaced.

    state     StartPart        PartStarted    StopPart (TERM)   its time is over   PartExited
    stopped   starting
    starting                   running        stopping                             stopped, starts later
    running                                   stopping                             stopped, starts later
    stopping                                                    KILL, stopping     stopped, or held
    held      starting, when the emergency is over
"""

from collections.abc import Iterable

from protocol.messages import PartState
from supervisor.policy.commands import Command, Note, StartPart, StopPart
from supervisor.policy.events import PartExited, PartSample, PartStarted
from supervisor.policy.levels import Level
from supervisor.policy.part import Part
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState

HELD_FROM = Level.EMERGENCY
BACK_BELOW = Level.CRITICAL
WORKED_SECONDS = 60.0
"""A part that lived for so long could start: its death is no reason to wait with the next start."""


def attend(state: PoolState, now: float) -> list[Command]:
    """What is due: starts whose time has come, ends that take too long."""
    commands: list[Command] = []
    for part in state.parts.values():
        if part.state == "held" and not part.held:
            part.state = "stopped"
        if part.state == "stopped" and part.held:
            part.state = "held"
        if part.state == "stopped" and not state.draining and now >= part.start_at:
            part.state, part.planned, part.started_at = "starting", False, now
            part.incarnation += 1
            commands.append(StartPart(name=part.plan.name, incarnation=part.incarnation))
        if part.state == "stopping" and part.deadline is not None and now >= part.deadline:
            part.deadline = now + part.plan.stop_seconds
            commands.append(StopPart(name=part.plan.name, incarnation=part.incarnation, kill=True))
    return commands


def next_deadline(parts: Iterable[Part], draining: bool) -> float | None:
    """Returns when `attend` has something to do if nothing happens before."""
    due = [part.deadline for part in parts if part.state == "stopping" and part.deadline is not None]
    if not draining:
        due += [part.start_at for part in parts if part.state == "stopped" and not part.held]
    return min(due, default=None)


def on_started(state: PoolState, event: PartStarted, now: float) -> list[Command]:
    """The process exists; one that is unwanted meanwhile is stopped now that it can be."""
    part = _known(state, event.name, event.incarnation)
    if part is None:
        return []
    part.pid = event.pid
    if part.state == "starting":
        part.state, part.started_at, part.note = "running", now, None
        return []
    return [_terminate(part, now)]


def on_exited(state: PoolState, event: PartExited, now: float) -> list[Command]:
    """It is gone, or could not be started: told, unless it was asked to go, and started again in its time."""
    part = _known(state, event.name, event.incarnation)
    if part is None or part.state in ("stopped", "held"):
        return []
    lived = now - part.started_at if part.pid is not None else 0.0
    part.state, part.pid, part.rss_bytes, part.deadline = "held" if part.held else "stopped", None, 0, None
    if part.planned:
        part.start_at = now
        return []
    part.restarts += 1
    delay = part.restarting.died(now, 1 if lived >= WORKED_SECONDS else 0, state.random)
    part.start_at = now + delay
    how = event.reason or f"exit code {event.exit_code}"
    part.note = f"ended: {how}; next start in {delay:.1f} s"
    return [
        Note(
            kind="part_died",
            message=f"{part.plan.name} ended ({how}); it starts again in {delay:.1f} s",
            figures={
                "part": part.plan.name,
                "exit_code": event.exit_code,
                "delay_seconds": delay,
                "lived_seconds": round(lived, 3),
            },
        )
    ]


def on_level(state: PoolState, now: float) -> list[Command]:
    """Holds the non-essential parts back in an emergency, and lets them go when it is over."""
    if state.level >= HELD_FROM:
        return hold(state, now, f"memory level {state.level.word}")
    running = state.cleanups.running
    asked_for = running is not None and running.tier == "emergency"
    return release(state, now) if state.level < BACK_BELOW and not asked_for else []


def hold(state: PoolState, now: float, reason: str) -> list[Command]:
    """Stops every part that is not essential and keeps it stopped."""
    commands: list[Command] = []
    for part in state.parts.values():
        if part.plan.essential or part.held:
            continue
        part.held = True
        part.note = f"held back: {reason}"
        held = human(part.rss_bytes)
        message = f"{part.plan.name} is stopped until the emergency is over: {reason}; it held {held}"
        figures: dict[str, object] = {"part": part.plan.name, "rss_bytes": part.rss_bytes}
        commands.append(Note(kind="part_held", message=message, figures=figures))
        commands += stop(state, part, now)
    return commands


def release(state: PoolState, now: float) -> list[Command]:
    """Lets the parts start again that an emergency held back."""
    commands: list[Command] = []
    for part in state.parts.values():
        if not part.held:
            continue
        part.held, part.start_at, part.note = False, now, None
        message = f"{part.plan.name} starts again: the emergency is over"
        commands.append(Note(kind="part_released", message=message, figures={"part": part.plan.name}))
    return commands


def stop(state: PoolState, part: Part, now: float) -> list[Command]:
    """Asks a part to end: TERM, and KILL when its time is over."""
    if part.state in ("stopped", "held", "stopping"):
        return []
    exists = part.pid is not None
    part.state, part.planned = "stopping", True
    part.deadline = now + part.plan.stop_seconds
    return [_terminate(part, now)] if exists else []


def stop_all(state: PoolState, now: float) -> list[Command]:
    """The pool drains: nothing beside it goes on."""
    return [command for part in state.parts.values() for command in stop(state, part, now)]


def all_gone(state: PoolState) -> bool:
    """Whether no part has a process."""
    return all(part.state in ("stopped", "held") for part in state.parts.values())


def take_in(state: PoolState, samples: Iterable[PartSample], now: float) -> list[Command]:
    """Takes in a look at the parts; one above its limit is replaced."""
    commands: list[Command] = []
    for sample in samples:
        part = state.parts.get(sample.role)
        if part is None or part.pid != sample.pid:
            continue
        part.rss_bytes = sample.rss_bytes
        limit = part.plan.limit_bytes
        if limit is None or sample.rss_bytes < limit or part.state != "running":
            continue
        message = f"{part.plan.name} is replaced: it holds {human(sample.rss_bytes)}, its limit is {human(limit)}"
        figures: dict[str, object] = {
            "part": part.plan.name,
            "rss_bytes": sample.rss_bytes,
            "limit_bytes": limit,
        }
        commands.append(Note(kind="part_limit", message=message, figures=figures))
        commands += stop(state, part, now)
        # Its successor may do the same: it counts as a death, so that this ends in waiting, not in a loop.
        part.planned = False
    return commands


def states(parts: Iterable[Part]) -> list[PartState]:
    """Returns the parts as clients see them."""
    return [
        PartState(
            name=part.plan.name,
            essential=part.plan.essential,
            state=part.state,
            pid=part.pid,
            rss_bytes=part.rss_bytes,
            limit_bytes=part.plan.limit_bytes,
            restarts=part.restarts,
            note=part.note,
        )
        for part in parts
    ]


def _terminate(part: Part, now: float) -> StopPart:
    part.planned = True
    part.deadline = now + part.plan.stop_seconds
    return StopPart(name=part.plan.name, incarnation=part.incarnation, kill=False)


def _known(state: PoolState, name: str, incarnation: int) -> Part | None:
    part = state.parts.get(name)
    return part if part is not None and part.incarnation == incarnation else None
