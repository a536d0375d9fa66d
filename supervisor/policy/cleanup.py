"""Clean-ups: memory given back on purpose, in four tiers, each of which is verified.

A tier is a list of actions (ACTIONS, a table), each with an owner, a priority, a time limit. A clean-up of a tier
runs the actions of that tier and of those below it: the supervisor's own in a thread of their own (CleanUp, answered
by CleanedUp), the workers' between their items (Trim, answered by Trimmed), the pool's at once. Why one begins:

* the level calls for a tier (elevated: gentle, warning: moderate, critical: aggressive, from emergency: emergency),
  and that tier does not rest. One that ran and did not help is followed by the next tier, as far as the level lets
  it: a kill is nothing that warmth calls for;
* the pool has been without work for `periodic_seconds`, or for `after_work_seconds` since the last batch;
* somebody asks for it: then it does not matter who rests.

It is over when everybody has answered, or `verify_seconds` have passed, and the next look tells whether memory came
back: to within a tenth of the baseline (all workers warm and idle), or below the level that called for it.
"""

from typing import Literal

import msgspec

from protocol.messages import TIERS, Cleanup, CleanupAction, CleanupReport, CleanupTier, Trim, Trimmed
from supervisor.policy import parts
from supervisor.policy.cleanup_state import Cause, Running
from supervisor.policy.commands import CleanUp, Command, Note, Reply, TellWorker
from supervisor.policy.deaths import PLANNED
from supervisor.policy.events import CleanedUp
from supervisor.policy.levels import Level
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.stopping import kill_worker, recycle
from supervisor.policy.watch import Candidate, choose_victim


class Action(msgspec.Struct, frozen=True):
    """One registered action: the lowest tier it belongs to, its turn (lowest first), what it may take."""

    name: str
    owner: Literal["supervisor", "workers", "pool"]
    tier: CleanupTier
    priority: int
    limit_seconds: float


ACTIONS = (
    Action("expired cache entries", "supervisor", "gentle", 10, 1.0),
    Action("cache memory level", "supervisor", "gentle", 20, 1.0),
    Action("journal memory", "supervisor", "gentle", 30, 1.0),
    Action("gc", "supervisor", "gentle", 80, 1.0),
    Action("malloc_trim", "supervisor", "gentle", 90, 1.0),
    Action("trim workers", "workers", "gentle", 40, 5.0),
    Action("thin histories", "pool", "moderate", 50, 0.1),
    Action("halve batches", "pool", "moderate", 51, 0.1),
    Action("replace workers", "pool", "aggressive", 60, 60.0),
    Action("stop parts", "pool", "emergency", 70, 5.0),
    Action("kill the fattest", "pool", "emergency", 71, 5.0),
)
"""What clean-ups consist of. Beside them, as long as the level lasts: one lease at a time from critical on, new work
refused from emergency on (`lending`, `intake`)."""

_CALLED_FOR: dict[Level, tuple[CleanupTier, CleanupTier]] = {
    Level.ELEVATED: ("gentle", "gentle"),
    Level.WARNING: ("moderate", "aggressive"),
    Level.CRITICAL: ("aggressive", "emergency"),
    Level.EMERGENCY: ("emergency", "emergency"),
    Level.PROTECTION: ("emergency", "emergency"),
}
"""The tier a level begins with, and how far it may go when that does not help."""
CURVE_LEFT = 20
"""Samples of a worker that thinning leaves it."""


def cleanups(state: PoolState) -> list[Cleanup]:
    """Returns the clean-ups remembered, oldest first."""
    return list(state.cleanups.history)


def actions_of(tier: CleanupTier) -> list[Action]:
    """Returns the actions of a tier and of those below it, in their order."""
    due = [action for action in ACTIONS if TIERS.index(action.tier) <= TIERS.index(tier)]
    return sorted(due, key=lambda action: action.priority)


def rests_seconds(state: PoolState, tier: CleanupTier, now: float) -> float:
    """Returns how long a tier will not run by itself yet."""
    ran = state.cleanups.ran_at.get(tier)
    if ran is None:
        return 0.0
    return max(0.0, ran + state.settings.cleanup.cooldown_seconds(tier) - now)


def attend(state: PoolState, now: float) -> list[Command]:
    """What is due after a look or a tick: the end of the one in progress, or the begin of one."""
    record = state.cleanups
    if record.running is not None:
        if record.work_over_at is not None:
            record.work_over_at = max(record.work_over_at, now)  # its time begins when this one is over
        return _go_on(state, record.running, now)
    if state.draining:
        record.work_over_at = None
    if state.draining or state.sampled_at is None:
        return []
    tier = _called_for(state, now)
    if tier is not None:
        return begin(state, tier, f"memory level {state.levels.acute.word}", "level", now)
    idle = not state.leases and not state.queue.batches
    if not idle:
        record.work_over_at = None
        return []
    settings = state.settings.cleanup
    if record.work_over_at is not None and now >= record.work_over_at + settings.after_work_seconds:
        record.work_over_at = None
        return begin(state, "moderate", "the work is over", "work", now)
    since = record.last_at if record.last_at is not None else state.started_at
    if now - since >= settings.periodic_seconds:
        return begin(state, "gentle", f"nothing to do for {settings.periodic_seconds:.0f} s", "periodic", now)
    return []


def next_deadline(state: PoolState) -> float | None:
    """Returns when `attend` has something to do if nothing happens before."""
    record, settings = state.cleanups, state.settings.cleanup
    if record.running is not None:
        return record.running.began + settings.verify_seconds
    if record.work_over_at is not None:
        return record.work_over_at + settings.after_work_seconds
    return None


def _called_for(state: PoolState, now: float) -> CleanupTier | None:
    level = state.levels.acute
    if level is Level.NORMAL:
        if state.level is Level.NORMAL:
            state.cleanups.failed = None
        return None
    first, furthest = _CALLED_FOR[level]
    tier = first
    failed = state.cleanups.failed
    if failed is not None and TIERS.index(failed) >= TIERS.index(first):
        tier = TIERS[min(TIERS.index(failed) + 1, TIERS.index(furthest))]
    return tier if rests_seconds(state, tier, now) == 0 else None


def begin(
    state: PoolState,
    tier: CleanupTier,
    reason: str,
    cause: Cause,
    now: float,
    to: tuple[bytes, int | str] | None = None,
    collect_cycles: int = 0,
) -> list[Command]:
    """Begins a clean-up; `to` is who gets the report. One in progress is joined by whoever asks for no more than it
    does, and cut short by what asks for more. A mere collection is no run of its tier: what that gives is still
    there."""
    record = state.cleanups
    commands: list[Command] = []
    if record.running is not None:
        if to is not None and _does_all(record.running, tier, collect_cycles):
            record.running.to.append(to)
            return []
        commands += _finish(state, record.running, now, cut_short=True)
    record.number += 1
    record.last_at = now
    if not collect_cycles:
        record.ran_at[tier] = now
        record.runs[tier] = record.runs.get(tier, 0) + 1
    running = Running(
        number=record.number,
        tier=tier,
        reason=reason,
        cause=cause,
        level=state.levels.acute,
        began=now,
        at=state.epoch(now),
        before_bytes=state.used_bytes,
        awaits=set(),
        collecting=bool(collect_cycles),
        to=[to] if to is not None else [],
    )
    record.running = running
    own = [action for action in actions_of(tier) if action.owner == "supervisor"]
    if collect_cycles:
        own = [action for action in own if action.name in ("gc", "malloc_trim")]
    commands.append(
        CleanUp(
            number=running.number,
            tier=tier,
            actions=[(action.name, action.limit_seconds) for action in own],
            collect_cycles=max(1, collect_cycles),
            whole=not state.leases,
        )
    )
    commands += _tell_workers(state, running, collect_cycles, now)
    if not collect_cycles:
        commands += _pools_own(state, running, now)
    # The end shows in a look: the next one is not to be waited for longer than it takes.
    state.sample_at = min(state.sample_at, now + state.settings.watch.interval_max_seconds)
    return commands


def _does_all(running: Running, tier: CleanupTier, collect_cycles: int) -> bool:
    return not (running.collecting or collect_cycles) and TIERS.index(tier) <= TIERS.index(running.tier)


def _tell_workers(state: PoolState, running: Running, collect_cycles: int, now: float) -> list[Command]:
    commands: list[Command] = []
    for slot in state.slots:
        worker = slot.worker
        if worker is None or worker.state not in ("IDLE", "BUSY"):
            continue
        # One that trims already does this after it: what it was told before may be less.
        worker.trimming, worker.trimmed_at = True, now
        running.awaits.add((slot.index, worker.incarnation))
        message = Trim(tier=running.tier, cleanup=running.number, collect_cycles=collect_cycles)
        commands.append(TellWorker(slot=slot.index, incarnation=worker.incarnation, message=message))
    return commands


def _pools_own(state: PoolState, running: Running, now: float) -> list[Command]:
    commands: list[Command] = []
    for action in actions_of(running.tier):
        match action.name:
            case "thin histories":
                _note_action(running, action.name, _thin(state))
            case "halve batches":
                _halve(state, running, now)
            case "replace workers":
                # From critical on the memory watch itself chooses, one victim a look (`care`).
                if running.cause != "level" or running.level < Level.CRITICAL:
                    running.to_replace = _worth_replacing(state)
            case "stop parts":
                held = sum(part.rss_bytes for part in state.parts.values() if not part.plan.essential)
                commands += parts.hold(state, now, f"clean-up {running.tier}")
                _note_action(running, action.name, held)
            case "kill the fattest":
                commands += _kill(state, running, now)
    return commands + _replace_next(state, running, now)


def _halve(state: PoolState, running: Running, now: float) -> None:
    """Where somebody asked for it: at a level of warning and above the memory watch itself halves them (`care`), and
    when the work is over the next batch should not pay for it."""
    if running.cause not in ("asked", "protection"):
        return
    for slot in state.slots:
        slot.batch_size.pressure(now, f"clean-up {running.tier}: {running.reason}")
    _note_action(running, "halve batches", 0)


def _note_action(running: Running, name: str, freed_bytes: int, owner: str = "pool", error: str | None = None) -> None:
    running.actions.append(CleanupAction(name=name, owner=owner, freed_bytes=freed_bytes, seconds=0.0, error=error))


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


def _replace_next(state: PoolState, running: Running, now: float) -> list[Command]:
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
        _note_action(running, f"replace worker {index}", max(0, worker.rss_bytes - state.slimmest_bytes()))
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
    _note_action(running, f"kill worker {slot.index}", held)
    message = f"killing worker {slot.index}, which holds {human(held)}: clean-up {running.tier}, {running.reason}"
    note = Note(kind="emergency", slot=slot.index, message=message, figures={"rss_bytes": held})
    return [note, *kill_worker(state, slot, "emergency", now)]


# ---- answers -------------------------------------------------------------------------------------


def on_cleaned_up(state: PoolState, event: CleanedUp, now: float) -> list[Command]:
    """The supervisor's own actions are done."""
    running = state.cleanups.running
    if running is None or running.number != event.number:
        return []
    running.own_awaited = False
    running.actions += event.actions
    return []


def awaits_another(state: PoolState, slot: Slot, trimmed: Trimmed) -> bool:
    """Whether the worker that says this has still to do the clean-up in progress."""
    running = state.cleanups.running
    return (
        running is not None
        and trimmed.cleanup != running.number
        and (slot.index, trimmed.incarnation) in running.awaits
    )


def on_trimmed(state: PoolState, slot: Slot, trimmed: Trimmed) -> None:
    """A worker has done its part of a clean-up."""
    running = state.cleanups.running
    if running is None or running.number != trimmed.cleanup:
        return
    running.awaits.discard((slot.index, trimmed.incarnation))
    for freed in trimmed.freed:
        owner = f"worker {slot.index}" if freed.owner == "worker" else f"{freed.owner} in worker {slot.index}"
        running.actions.append(
            CleanupAction(
                name=freed.name,
                owner=owner,
                freed_bytes=freed.before_bytes - freed.after_bytes,
                seconds=freed.seconds,
                error=freed.error,
            )
        )


def _go_on(state: PoolState, running: Running, now: float) -> list[Command]:
    commands = _replace_next(state, running, now)
    _note_the_dead(state, running)
    late = now >= running.began + state.settings.cleanup.verify_seconds
    waiting = running.own_awaited or running.awaits or running.to_replace
    if waiting and not late:
        return commands
    if running.answered_at is None:
        running.answered_at = now
    fresh = state.sampled_at is not None and state.sampled_at > running.answered_at
    if not fresh and not late:
        state.sample_at = min(state.sample_at, now + state.settings.watch.interval_max_seconds)
        return commands
    return commands + _finish(state, running, now)


def _note_the_dead(state: PoolState, running: Running) -> None:
    """Whoever ended before it answered will not: told with its cause, unless it was replaced as planned."""
    alive = {(slot.index, slot.worker.incarnation) for slot in state.slots if slot.worker is not None}
    for index, incarnation in sorted(running.awaits - alive):
        running.awaits.discard((index, incarnation))
        death = state.slots[index].last_death
        if death is not None and death.cause not in PLANNED:
            _note_action(running, "trim workers", 0, f"worker {index}", f"ended before it answered: {death.cause}")


def _finish(state: PoolState, running: Running, now: float, cut_short: bool = False) -> list[Command]:
    """Writes the clean-up down, with whether memory came back, and tells whoever waits for it. One that was cut short
    had no time to help: nobody is named for it, and it is no reason for the next tier."""
    record = state.cleanups
    record.running = None
    seconds = now - running.began
    for index, _ in sorted(running.awaits if not cut_short else ()):
        late = f"has not answered within {seconds:.1f} s: its item goes on (its time limit ends it)"
        _note_action(running, "trim workers", 0, f"worker {index}", late)
    if running.own_awaited and not cut_short:
        _note_action(running, "supervisor", 0, "supervisor", f"has not ended within {seconds:.1f} s")
    baseline = state.rest_bytes()
    back = state.used_bytes <= baseline * state.settings.cleanup.recovered_share
    below = running.level > Level.NORMAL and state.levels.acute < running.level
    cleanup = Cleanup(
        number=running.number,
        at=running.at,
        tier=running.tier,
        reason=running.reason,
        before_bytes=running.before_bytes,
        after_bytes=state.used_bytes,
        baseline_bytes=baseline,
        recovered=back or below,
        actions=running.actions,
    )
    record.history.append(cleanup)
    if running.cause in ("level", "protection") and (cleanup.recovered or not cut_short):
        record.failed = None if cleanup.recovered else running.tier
    return [_note(cleanup, seconds), *(_report(cleanup, peer, number) for peer, number in running.to)]


def _note(cleanup: Cleanup, seconds: float) -> Note:
    freed = cleanup.before_bytes - cleanup.after_bytes
    back = "memory came back" if cleanup.recovered else "memory did not come back"
    failed = [f"{action.owner}: {action.name}: {action.error}" for action in cleanup.actions if action.error]
    wrong = f"; failed: {'; '.join(failed[:3])}" if failed else ""
    return Note(
        kind="cleanup" if cleanup.recovered else "cleanup_short",
        message=f"clean-up {cleanup.number} ({cleanup.tier}; {cleanup.reason}): {human(max(0, freed))} less than "
        f"before, {human(cleanup.after_bytes)} used, {human(cleanup.baseline_bytes)} at rest: {back}{wrong}",
        figures={
            "tier": cleanup.tier,
            "before_bytes": cleanup.before_bytes,
            "after_bytes": cleanup.after_bytes,
            "baseline_bytes": cleanup.baseline_bytes,
            "recovered": cleanup.recovered,
            "seconds": round(seconds, 3),
            "failed": len(failed),
        },
    )


def _report(cleanup: Cleanup, peer: bytes, request_id: int | str) -> Reply:
    return Reply(peer=peer, answer=CleanupReport(id=request_id, cleanup=cleanup))
