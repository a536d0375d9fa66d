"""Clean-ups: memory given back on purpose, in four tiers, each of which is verified.

A clean-up runs the actions of its tier and of those below it (`cleanup_actions`): the supervisor's own in a thread of
their own (CleanUp, answered by CleanedUp), the workers' between their items (Trim, answered by Trimmed), the pool's at
once (`cleanup_pool`). Why one begins:

* the level calls for a tier (elevated: gentle, warning: moderate, critical: aggressive, from emergency: emergency),
  and that tier does not rest. One that ran and did not help is followed by the next tier, as far as the level lets
  it: a kill is nothing that warmth calls for;
* the pool has been without work for `periodic_seconds`, or for `after_work_seconds` since the last batch;
* somebody asks for it: then it does not matter who rests.

It is over when everybody has answered, or `verify_seconds` have passed, and the next look tells whether memory came
back (`cleanup_verdict`).
"""

from protocol.messages import TIERS, Cleanup, CleanupAction, CleanupTier, Trim, Trimmed
from supervisor.policy.cleanup_actions import actions_of, note_action
from supervisor.policy.cleanup_pool import give_up, replace_next
from supervisor.policy.cleanup_state import Cause, Running
from supervisor.policy.cleanup_verdict import finish
from supervisor.policy.commands import CleanUp, Command, TellWorker
from supervisor.policy.deaths import PLANNED
from supervisor.policy.events import CleanedUp
from supervisor.policy.levels import Level
from supervisor.policy.state import PoolState, Slot

_CALLED_FOR: dict[Level, tuple[CleanupTier, CleanupTier]] = {
    Level.ELEVATED: ("gentle", "gentle"),
    Level.WARNING: ("moderate", "aggressive"),
    Level.CRITICAL: ("aggressive", "emergency"),
    Level.EMERGENCY: ("emergency", "emergency"),
    Level.PROTECTION: ("emergency", "emergency"),
}
"""The tier a level begins with, and how far it may go when that does not help."""


def cleanups(state: PoolState) -> list[Cleanup]:
    """Returns the clean-ups remembered, oldest first."""
    return list(state.cleanups.history)


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
        commands += finish(state, record.running, now, cut_short=True)
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
        commands += give_up(state, running, now)
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
    commands = replace_next(state, running, now)
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
    return commands + finish(state, running, now)


def _note_the_dead(state: PoolState, running: Running) -> None:
    """Whoever ended before it answered will not: told with its cause, unless it was replaced as planned."""
    alive = {(slot.index, slot.worker.incarnation) for slot in state.slots if slot.worker is not None}
    for index, incarnation in sorted(running.awaits - alive):
        running.awaits.discard((index, incarnation))
        death = state.slots[index].last_death
        if death is not None and death.cause not in PLANNED:
            note_action(running, "trim workers", 0, f"worker {index}", f"ended before it answered: {death.cause}")
