"""The memory watch in action: one look at everybody, then the remedies.

Each look runs the same pipeline: take in the figures; for each worker, its item's time and its own limits; for the
whole, the level and at most one victim; at last, when to look again. The judging is done by pure functions
(`watch`, `limits`, `levels`, `interval`); here their verdicts become commands and notes.
"""

from typing import Literal, assert_never

import msgspec

from protocol.messages import Shrink, Trim
from supervisor.policy import collecting, crowding, historian, hours, parts, trend
from supervisor.policy.commands import Command, Note, TellWorker, TrimCache
from supervisor.policy.events import Sampled, WorkerSample
from supervisor.policy.interval import interval_seconds
from supervisor.policy.levels import Level, level_words
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState, Slot, Warm
from supervisor.policy.status import current_path
from supervisor.policy.stopping import kill_worker, recycle
from supervisor.policy.watch import (
    Action,
    Candidate,
    Verdict,
    WorkerFacts,
    choose_victim,
    judge,
    judge_item_time,
    strangers_bytes,
    total_used,
)
from supervisor.policy.worker import Worker

TRIM_EVERY_SECONDS = 1.0
"""A trim takes some 10 ms of the worker and its effect must show in a sample before the next is worth it."""
SHRINK_EVERY_SECONDS = 2.0
"""At a level of warning or above all batch sizes are halved again so often: leases of half a second must have
ended meanwhile, or the shrinking could not have helped yet."""


_TIERS: dict[Level, Literal["gentle", "moderate", "aggressive", "emergency"]] = {
    Level.WARNING: "moderate",
    Level.CRITICAL: "aggressive",
    Level.EMERGENCY: "emergency",
    Level.PROTECTION: "emergency",
}
"""What the cache's memory level is left at each level of memory: it is the cheapest thing to give up."""


_STANDSTILL_SECONDS = 0.5
"""Five times the longest interval between two looks at a pool that works."""


def on_sampled(state: PoolState, event: Sampled, now: float) -> list[Command]:
    """Takes in one look and returns the remedies it calls for."""
    seen_at = state.sampled_at
    _take_in_whole(state, event, now)
    off_before, state.off_hours = state.off_hours, hours.why_off(state.settings.between, event.second_of_day)
    commands = hours.tell(off_before, state.off_hours)
    commands += state.stall.look(event.stall_share, state.settings.watch.stall_share_brake, now)
    seen = _take_in_workers(state, event, now)
    warm = state.warm()
    for slot, worker, sample in seen:
        commands += _item_time(state, slot, worker, sample, seen_at, now)
        commands += _trim_time(state, slot, worker, now)
        if worker.state in ("IDLE", "BUSY", "DRAINING") and worker.baseline_bytes:
            commands += _care_for(state, slot, worker, sample, warm, now)
    state.baselines_known.see(warm.baselines)
    commands += parts.take_in(state, event.parts, now)
    commands += crowding.look(state, now)
    commands += _care_for_whole(state, now)
    commands += state.own_watch.look(event.parts, state.settings.watch, bool(state.settings.cache_steps), now)
    commands += parts.on_level(state, now)
    historian.take_in(state, now)
    commands += trend.take_in(state, now)
    state.sample_at = now + _interval(state, warm)
    return commands


def on_stalled(state: PoolState, now: float) -> list[Command]:
    """Tasks wait for memory: admission is braked, and the sizes are looked at, at once."""
    state.sample_at = min(state.sample_at, now)
    return state.stall.told(state.settings.watch.stall_share_brake, now)


def _take_in_whole(state: PoolState, event: Sampled, now: float) -> None:
    looks = [(sample.rss_bytes, sample.shared_bytes) for sample in event.workers if sample.rss_bytes is not None]
    state.used_bytes = total_used(event.own_bytes, looks, event.cgroup_used_bytes)
    state.own_bytes = event.own_bytes + strangers_bytes(event.own_bytes, looks, event.cgroup_used_bytes)
    state.budget_bytes, state.budget_source = _budget(state, event)
    state.used_source = "own processes" if event.cgroup_used_bytes is None else "control group"
    state.part_samples = event.parts
    if all(slot.worker is not None and slot.worker.baseline_bytes for slot in state.slots if not slot.crowded):
        own = max(0, state.own_bytes - state.beside_bytes())
        state.least_own_bytes = own if state.least_own_bytes is None else min(state.least_own_bytes, own)
    state.available_bytes = event.available_bytes
    state.swap_in_bytes_per_second = event.swap_in_bytes_per_second
    state.sampled_at = now
    for lease in state.leases.values():
        batch = state.queue.batches[lease.batch]
        batch.peak_bytes = max(batch.peak_bytes, state.used_bytes)


def _budget(state: PoolState, event: Sampled) -> tuple[int, str]:
    """The limit on the total, where one is set, is as good as a smaller machine."""
    limit = state.settings.watch.max_total_bytes
    if limit is None or limit >= event.budget_bytes:
        return event.budget_bytes, event.budget_source
    return limit, "watch.max_total_bytes"


def _take_in_workers(state: PoolState, event: Sampled, now: float) -> list[tuple[Slot, Worker, WorkerSample]]:
    """Returns those that were looked at and still are who they were."""
    looked = {sample.slot: sample for sample in event.workers}
    seen = []
    for slot in state.slots:
        worker, sample = slot.worker, looked.get(slot.index)
        if worker is not None and sample is not None and sample.incarnation == worker.incarnation:
            _take_in_worker(slot, worker, sample, now)
            seen.append((slot, worker, sample))
    return seen


def _take_in_worker(slot: Slot, worker: Worker, sample: WorkerSample, now: float) -> None:
    if sample.rss_bytes is not None:
        worker.rss_bytes, worker.swap_bytes = sample.rss_bytes, sample.swap_bytes
        worker.sampled_at = now
        worker.peak_bytes = max(worker.peak_bytes, sample.rss_bytes)
        worker.curve.append((now, sample.rss_bytes))
        slot.growth.note(sample.rss_bytes, now)
    worker.shared_bytes = sample.shared_bytes
    if sample.item and (sample.item != worker.item or sample.item_started > worker.progress_at):
        worker.progress_at = max(worker.progress_at, sample.item_started)
    worker.item = sample.item


def _item_time(
    state: PoolState, slot: Slot, worker: Worker, sample: WorkerSample, seen_at: float | None, now: float
) -> list[Command]:
    """Ends a worker that made no progress on its item, or between two items, within the time limit. `seen_at`: when it
    was looked at before."""
    if worker.state not in ("BUSY", "DRAINING"):
        return []
    started = sample.item_started if sample.item else worker.progress_at
    limit = state.settings.item_timeout_seconds
    if started:
        started = max(started, worker.excused_at)
    what = "its clean-up" if worker.trimming and not sample.item else "its item"
    verdict = judge_item_time(slot.index, started, now, limit, what)
    if verdict.action is not Action.KILL:
        return []
    if seen_at is not None and now - seen_at > max(
        _STANDSTILL_SECONDS, min(limit / 2, state.settings.sample_stale_seconds)
    ):
        # Nobody looked, so nothing ran: a machine that stood still (suspended, thrashing) is no image's fault.
        worker.excused_at = now
        message = f"worker {slot.index}: {verdict.reason}, but the machine stood still: it is given its time anew"
        return [Note(kind="excused", slot=slot.index, message=message, figures={"seconds": round(now - seen_at, 3)})]
    lease = state.lease_of(worker)
    path = None
    if lease is not None and sample.item in lease.items:
        path = state.path_of(lease.batch, lease.items[sample.item])
    figures = {"seconds": round(now - started, 3), "limit_seconds": limit}
    note = Note(kind="timeout", slot=slot.index, path=path, message=verdict.reason, figures=figures)
    return [note, *kill_worker(state, slot, "timeout", now)]


def _trim_time(state: PoolState, slot: Slot, worker: Worker, now: float) -> list[Command]:
    """Ends an idle worker that hangs in a clean-up: an action that never comes back to Python cannot be interrupted
    there. One that has work is bounded by the time limit of its item."""
    limit = state.settings.item_timeout_seconds
    since = max(worker.trimmed_at, worker.progress_at)
    if worker.state != "IDLE" or not worker.trimming or now - since < limit:
        return []
    message = f"worker {slot.index}: its clean-up runs for {now - since:.1f} s, the limit is {limit:g} s"
    note = Note(kind="timeout", slot=slot.index, message=message, figures={"limit_seconds": limit})
    return [note, *kill_worker(state, slot, "timeout", now)]


def _care_for(
    state: PoolState, slot: Slot, worker: Worker, sample: WorkerSample, warm: Warm, now: float
) -> list[Command]:
    limits = state.limits(slot, warm)
    facts = WorkerFacts(
        slot=slot.index,
        rss_bytes=sample.rss_bytes,
        sampled_at=now,
        items_settled=worker.items_done,
        heap_bytes=worker.heap_bytes or None,
        native_bytes=worker.native_bytes or None,
    )
    verdict = judge(facts, limits, state.settings.watch, now)
    match verdict.action:
        case Action.CALM | Action.STALE:
            return []
        case Action.TRIM_AND_SHRINK:
            return _trim_and_shrink(state, slot, worker, verdict, now)
        case Action.WIDEN:
            return _widen(state, slot, verdict)
        case Action.RECYCLE:
            return recycle(state, slot, now, "memory", verdict.reason, _figures(verdict))
        case Action.KILL:
            note = Note(
                kind="hard_limit",
                slot=slot.index,
                batch=slot.last_batch,
                path=current_path(state, slot),
                message=f"killing {verdict.reason}",
                figures=_figures(verdict),
            )
            return [note, *kill_worker(state, slot, "hard_limit", now)]
    assert_never(verdict.action)


def _figures(verdict: Verdict) -> dict[str, object]:
    return {"rss_bytes": verdict.rss_bytes, "limit_bytes": verdict.limit_bytes}


def _widen(state: PoolState, slot: Slot, verdict: Verdict) -> list[Command]:
    recipe = state.recipe_of(slot)
    before = state.widenings.of(slot.index, recipe)
    after = state.widenings.widen(slot.index, recipe)
    if after == before:
        return []
    message = f"{verdict.reason}; its allowance is widened to {after:.2f} times, raise --memory or lower --workers"
    return [Note(kind="widened", slot=slot.index, message=message, figures={**_figures(verdict), "factor": after})]


def _trim_and_shrink(state: PoolState, slot: Slot, worker: Worker, verdict: Verdict, now: float) -> list[Command]:
    if worker.trimming or now - worker.trimmed_at < TRIM_EVERY_SECONDS or worker.state == "DRAINING":
        return []
    if collecting.trimming_is_useless(state, slot, worker):
        return _instead_of_trimming(state, slot, worker, verdict, now)
    worker.trimming = True
    worker.trimmed_at = now
    commands = _shrink(state, slot, verdict.reason, now)
    commands.append(TellWorker(slot=slot.index, incarnation=worker.incarnation, message=Trim()))
    note = Note(
        kind="soft_limit",
        slot=slot.index,
        batch=slot.last_batch,
        path=current_path(state, slot),
        message=f"trimming and shrinking {verdict.reason}",
        figures={**_figures(verdict), "batch_size": slot.batch_size.size},
    )
    return [note, *commands]


def _instead_of_trimming(state: PoolState, slot: Slot, worker: Worker, verdict: Verdict, now: float) -> list[Command]:
    """A worker that trimming does not make smaller: it shrinks, and is replaced once it is old enough for that."""
    worker.trimmed_at = now
    commands = _shrink(state, slot, verdict.reason, now)
    young = worker.items_done < state.settings.watch.min_items_between_recycles
    if young or worker.rss_bytes < state.limits(slot).soft_bytes:
        return commands
    why = f"{verdict.reason}; trimming it was useless before"
    return commands + recycle(state, slot, now, "trim_useless", why, _figures(verdict))


def _shrink(state: PoolState, slot: Slot, reason: str, now: float) -> list[Command]:
    """Halves a slot's batch size; what its lease holds beyond that is handed back."""
    before = slot.batch_size.size
    if state.level >= Level.CRITICAL:
        slot.batch_size.critical(now, reason)
    else:
        slot.batch_size.pressure(now, reason)
    commands: list[Command] = []
    if slot.batch_size.size < before:
        state.totals["batch_shrinks"] += 1
        batch = state.queue.batches.get(slot.last_batch or "")
        if batch is not None:
            batch.batch_shrinks += 1
        commands.append(
            Note(
                kind="shrunk",
                slot=slot.index,
                batch=slot.last_batch,
                message=f"batch size of worker {slot.index}: {before} -> {slot.batch_size.size}",
                figures={"before": before, "after": slot.batch_size.size},
            )
        )
    lease = state.lease_of(slot.worker) if slot.worker is not None else None
    if lease is not None and slot.worker is not None:
        lease.disturbed = True
        keep = max(0, slot.batch_size.size - lease.settled - 1)
        if len(lease.items) > keep + 1 and slot.worker.state == "BUSY":
            message = Shrink(lease=lease.number, keep=keep)
            commands.append(TellWorker(slot=slot.index, incarnation=slot.worker.incarnation, message=message))
    return commands


def _held(state: PoolState, now: float) -> list[Command]:
    """Says once for each stay in a level that only its delay holds it, when that takes longer than the delay itself."""
    held = state.levels.held(now)
    if held is None:
        state.levels.held_told = False
        return []
    if state.levels.held_told or held.held_seconds <= held.hold_seconds:
        return []
    state.levels.held_told = True
    message = f"memory level {level_words(state.level.word, held)}"
    return [Note(kind="level_held", message=message, figures=msgspec.structs.asdict(held))]


def _care_for_whole(state: PoolState, now: float) -> list[Command]:
    before, held = state.level, state.levels.held(now)
    state.level = state.levels.update(
        state.used_bytes, state.budget_bytes, state.available_bytes, now, state.swap_in_bytes_per_second
    )
    commands: list[Command] = []
    if state.level > before:
        tier = _TIERS.get(state.level) if state.settings.cache_steps else None
        commands += [TrimCache(tier=tier)] if tier is not None else []
    if state.level != before:
        commands.append(
            Note(
                kind="level",
                message=f"memory level {before.word} -> {state.level.word}: {state.levels.reason}"
                + (f"; held for {held.held_seconds:.1f} s" if held is not None and state.level < before else ""),
                figures={
                    "level": int(state.level),
                    "falling": state.level < before,
                    "used_bytes": state.used_bytes,
                    "budget_bytes": state.budget_bytes,
                    "available_bytes": state.available_bytes,
                },
            )
        )
    commands += _held(state, now)
    if state.level < Level.WARNING:
        return commands
    if state.level > before or now - state.shrunk_at >= SHRINK_EVERY_SECONDS:
        state.shrunk_at = now
        for slot in state.slots:
            if slot.worker is not None and slot.worker.state == "BUSY":
                commands += _shrink(state, slot, f"memory level {state.level.word}", now)
    return commands + _victim(state, now)


def _victim(state: PoolState, now: float) -> list[Command]:
    candidates = [
        Candidate(
            slot=slot.index,
            rss_bytes=slot.worker.rss_bytes if slot.worker.sampled_at is not None else None,
            sampled_at=slot.worker.sampled_at or 0.0,
            baseline_bytes=slot.worker.baseline_bytes,
            items_settled=slot.worker.items_done,
            leaving=slot.worker.state in ("DRAINING", "STOPPING"),
            dying=slot.worker.state == "KILLING",
        )
        for slot in state.slots
        if slot.worker is not None and slot.worker.state != "STARTING"
    ]
    choice = choose_victim(state.levels.acute, candidates, state.settings.watch, now)
    if choice.slot is None:
        return []
    slot = state.slots[choice.slot]
    worker = slot.worker
    assert worker is not None
    verdict = Verdict(action=choice.action, reason=choice.reason, rss_bytes=worker.rss_bytes)
    match choice.action:
        case Action.TRIM_AND_SHRINK:
            return _trim_and_shrink(state, slot, worker, verdict, now)
        case Action.RECYCLE:
            return recycle(state, slot, now, "pressure", choice.reason, _figures(verdict))
        case Action.KILL:
            note = Note(
                kind="emergency",
                slot=slot.index,
                path=current_path(state, slot),
                message=f"killing worker {slot.index}, which holds {human(worker.rss_bytes)}: {choice.reason}",
                figures=_figures(verdict),
            )
            return [note, *kill_worker(state, slot, "emergency", now)]
        case Action.CALM | Action.STALE | Action.WIDEN:
            return []
    assert_never(choice.action)


def _interval(state: PoolState, warm: Warm) -> float:
    """Returns the seconds until the next look."""
    headroom = state.budget_bytes - state.used_bytes
    growth = 0.0
    idle = True
    to_limits: list[int] = []
    for slot in state.slots:
        worker = slot.worker
        if worker is None:
            continue
        if worker.state != "IDLE":
            idle = False
        if worker.state in ("BUSY", "DRAINING") and worker.baseline_bytes:
            limits = state.limits(slot, warm)
            headroom = min(headroom, limits.hard_bytes - worker.rss_bytes)
            softer = (limits.soft_bytes - worker.rss_bytes, limits.recycle_bytes - worker.rss_bytes)
            to_limits += [left for left in softer if left > 0][:1]
            growth = max(growth, slot.growth.bytes_per_second)
    if idle:
        # Neighbours may take what is free on the machine; at any level above normal there is something to follow.
        free = state.available_bytes - state.settings.watch.min_free_system_bytes
        headroom = min(headroom, free) if state.level is Level.NORMAL else 0
    return interval_seconds(headroom, growth, idle, state.settings.watch, min(to_limits, default=None))
