"""The whole picture of memory, told from the state: who holds what, what it means, what was done about it.

The policy tells what it knows; the hands add what only they can see (the stores of the threads, the supervisor's own
heap). Every store is told with its limit, because a store without one is a leak that waits for a long enough night.
"""

import msgspec

from protocol import messages as m
from supervisor.policy.cleanup import cleanups
from supervisor.policy.collecting import collections
from supervisor.policy.events import PartSample
from supervisor.policy.leaks import leaks
from supervisor.policy.levels import Level
from supervisor.policy.limits import MAX_REMEMBERED
from supervisor.policy.memory_leases import memory_leases, models
from supervisor.policy.prediction.learning import predictions
from supervisor.policy.queue import VERDICT_BYTES
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.status import current_path
from supervisor.policy.trend import trends
from supervisor.policy.worker import CURVE_SAMPLES

_ITEM_BYTES = 300
"""Of an item in the window, as measured: the struct, its name, its place."""
_BATCH_BYTES = 4_000
VERDICTS = "verdicts on their way to the disk"


def memory_report(state: PoolState, request_id: int | str, now: float) -> m.MemoryReport:
    """Returns everything known about memory at this moment."""
    settings = state.settings
    return m.MemoryReport(
        id=request_id,
        version=settings.version,
        pid=settings.pid,
        uptime_seconds=round(now - state.started_at, 3),
        level=state.level.word,
        level_held=state.levels.held(now),
        pressure=round(state.used_bytes / state.budget_bytes, 4) if state.budget_bytes else 0.0,
        budget_bytes=state.budget_bytes,
        budget_source=state.budget_source,
        used_bytes=state.used_bytes,
        used_source=state.used_source,
        available_bytes=state.available_bytes,
        swap_in_bytes_per_second=round(state.swap_in_bytes_per_second, 1),
        stall_share=state.stall.share,
        stalled=state.stalled(),
        thresholds=thresholds(state),
        processes=[
            *(_part(state, part) for part in state.part_samples),
            *(_worker(state, slot) for slot in state.slots),
        ],
        memory_leases=memory_leases(state),
        models=models(state),
        trend=trends(state, now),
        leaks=leaks(state),
        collection=collections(state),
        cleanups=cleanups(state),
        predictions=predictions(state),
        stores=stores(state),
    )


def thresholds(state: PoolState) -> dict[str, float | int | None]:
    """Returns every threshold as it is set, and where each level begins under the budget of the moment."""
    watch = state.settings.watch
    told: dict[str, float | int | None] = {
        name: value
        for name, value in msgspec.structs.asdict(watch).items()
        if name.endswith(("_share", "_bytes", "_bytes_per_second"))
    }
    for level in Level:
        if level is not Level.NORMAL:
            told[f"{level.word}_bytes"] = int(getattr(watch, f"{level.word}_share") * state.budget_bytes)
    return told


def _part(state: PoolState, part: PartSample) -> m.ProcessMemory:
    return m.ProcessMemory(
        role=part.role,
        pid=part.pid,
        rss_bytes=part.rss_bytes,
        private_bytes=max(0, part.rss_bytes - part.shared_bytes),
        shared_bytes=part.shared_bytes,
        swap_bytes=part.swap_bytes,
    )


def _worker(state: PoolState, slot: Slot) -> m.ProcessMemory:
    worker = slot.worker
    if worker is None:
        return m.ProcessMemory(
            role="worker",
            pid=None,
            rss_bytes=0,
            private_bytes=0,
            shared_bytes=0,
            slot=slot.index,
            state="GONE",
            batch_size=slot.batch_size.size,
        )
    limits = state.limits(slot) if worker.baseline_bytes else None
    heap = worker.heap_bytes if worker.baseline_bytes else None
    lease = state.lease_of(worker)
    return m.ProcessMemory(
        role="worker",
        pid=worker.pid,
        rss_bytes=worker.rss_bytes,
        private_bytes=worker.private_bytes,
        shared_bytes=worker.shared_bytes,
        swap_bytes=worker.swap_bytes,
        heap_bytes=heap,
        native_bytes=None if heap is None else max(0, worker.private_bytes - heap),
        kept_bytes=None if heap is None else worker.kept_bytes,
        slot=slot.index,
        state=worker.state,
        baseline_bytes=worker.baseline_bytes or None,
        soft_bytes=limits.soft_bytes if limits is not None else None,
        recycle_bytes=limits.recycle_bytes if limits is not None else None,
        hard_bytes=limits.hard_bytes if limits is not None else None,
        reserved_bytes=lease.reserved_bytes if lease is not None else None,
        batch_size=slot.batch_size.size,
        current=current_path(state, slot),
    )


def stores(state: PoolState) -> list[m.Store]:
    """Returns the stores of the policy: count, bytes (as reckoned), limits."""
    settings, queue = state.settings, state.queue
    batches = list(state.queue.batches.values())
    workers = len(state.slots)
    samples = sum(len(slot.worker.curve) for slot in state.slots if slot.worker is not None)
    leases_items = workers * settings.batch_size_max
    verdicts_max = settings.verdicts_max + settings.window_items + leases_items
    return [
        _store("unfinished batches", len(batches), settings.batches_max, _BATCH_BYTES),
        _store("queue window", state.queue.windowed, settings.window_items, _ITEM_BYTES),
        _store("leased items", sum(batch.leased for batch in batches), leases_items, _ITEM_BYTES),
        m.Store(
            name=VERDICTS,
            owner="policy",
            count=queue.settling,
            # Beyond verdicts_max nothing is begun; what is in memory and with the workers by then may still follow.
            limit_count=verdicts_max,
            bytes=queue.settling_bytes,
            limit_bytes=settings.verdicts_max_bytes + (settings.window_items + leases_items) * VERDICT_BYTES,
        ),
        _store("items on the disk", state.queue.pending, settings.queue_max_items, 0),
        _store("submissions on their way to the disk", state.inserts, settings.inserts_max, None),
        _store("batches being opened", len(state.creating), settings.batches_max, None),
        _store("memory samples of workers", samples, workers * CURVE_SAMPLES, 120),
        m.Store(
            name="memory history",
            owner="policy",
            count=state.history.count,
            limit_count=state.history.limit_count,
            bytes=state.history.size_bytes,
            limit_bytes=state.history.size_bytes,
        ),
        _store("learned allowances", len(state.widenings.factors), MAX_REMEMBERED, 200),
    ]


def _store(name: str, count: int, limit: int | None, each_bytes: int | None) -> m.Store:
    return m.Store(
        name=name,
        owner="policy",
        count=count,
        limit_count=limit,
        bytes=None if each_bytes is None else count * each_bytes,
        limit_bytes=None if each_bytes is None or limit is None else limit * each_bytes,
    )
