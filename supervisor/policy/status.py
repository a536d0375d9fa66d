"""Status and progress, told from the state."""

from protocol import messages as m
from supervisor.policy.commands import LiveBatch
from supervisor.policy.queue import Batch
from supervisor.policy.state import PoolState, Slot


def status(state: PoolState, request_id: int | str, now: float) -> m.Status:
    """Returns the whole pool at this moment."""
    settings = state.settings
    batches = state.queue.batches.values()
    return m.Status(
        id=request_id,
        version=settings.version,
        pid=settings.pid,
        uptime_seconds=round(now - state.started_at, 3),
        level=state.level.word,
        level_held=state.levels.held(now),
        pressure=round(state.used_bytes / state.budget_bytes, 4) if state.budget_bytes else 0.0,
        budget_bytes=state.budget_bytes,
        used_bytes=state.used_bytes,
        queue=m.QueueStatus(
            pending=sum(batch.pending for batch in batches),
            leased=sum(batch.leased + batch.settling for batch in batches),
        ),
        workers=[_worker(state, slot) for slot in state.slots],
        totals=state.snapshot_totals(),
        paused=why_not_working(state),
        draining=state.draining,
        by_recipe=state.tallies.by_recipe(),
        durations=state.tallies.durations(),
        recycles_by_reason=dict(state.tallies.recycles),
        deaths_by_cause=dict(state.tallies.deaths),
    )


def why_not_working(state: PoolState) -> str | None:
    """Returns why the whole pool grants nothing, None when it does."""
    if state.paused is not None:
        return state.paused
    if state.off_hours is not None:
        return state.off_hours
    if state.journal_stalled is not None:
        return f"the journal cannot be written: {state.journal_stalled}"
    if state.temp_full is not None:
        return f"the disk of the temp directory is nearly full: {state.temp_full}"
    return None


def current_path(state: PoolState, slot: Slot) -> str | None:
    """Returns the token of the image that the slot's worker has in hand, as its flight recorder says."""
    worker = slot.worker
    lease = state.lease_of(worker) if worker is not None else None
    if worker is None or lease is None or worker.item not in lease.items:
        return None
    return state.path_of(lease.batch, lease.items[worker.item])


def _worker(state: PoolState, slot: Slot) -> m.WorkerStatus:
    worker = slot.worker
    limits = state.limits(slot) if worker is not None and worker.baseline_bytes else None
    return m.WorkerStatus(
        slot=slot.index,
        pid=worker.pid if worker is not None else None,
        state=worker.state if worker is not None else "GONE",
        rss_bytes=worker.rss_bytes if worker is not None else 0,
        private_bytes=worker.private_bytes if worker is not None else 0,
        baseline_bytes=worker.baseline_bytes if worker is not None else 0,
        soft_bytes=limits.soft_bytes if limits is not None else 0,
        hard_bytes=limits.hard_bytes if limits is not None else 0,
        batch_size=slot.batch_size.size,
        items_done=slot.items_done,
        current=current_path(state, slot),
        recycles=slot.recycles,
        restarts=slot.restarts,
        last_death=slot.last_death,
        batch_sizes=list(slot.batch_size.sizes),
        note=slot.note,
        sandbox=worker.sandbox if worker is not None else None,
    )


def batch_state(batch: Batch) -> m.BatchState:
    """Returns the state of an unfinished batch as clients see it; one that is over is so once that is committed."""
    if batch.closing:
        return "running"
    if batch.cancelled:
        return "cancelled"
    if batch.paused is not None:
        return "paused"
    return "running" if batch.began_at is not None or batch.settled else "accepted"


def live(batch: Batch) -> LiveBatch:
    """Returns what the journal is told of an unfinished batch, to list it as it is now."""
    return LiveBatch(batch.live_counts(), batch_state(batch))


def progress(state: PoolState, batch: Batch, request_id: int | str, now: float) -> m.BatchProgress:
    """Returns how far an unfinished batch is."""
    record = batch.record
    return m.BatchProgress(
        id=request_id,
        batch=batch.name,
        state=batch_state(batch),
        open=batch.open,
        recipe=record.recipe.name,
        out=record.out,
        items=batch.items,
        ignored=batch.ignored,
        counts=batch.live_counts(),
        summary=batch.so_far(now, state.budget_bytes),
        paused=batch.paused or why_not_working(state),
        used_bytes=state.used_bytes,
        batch_sizes=[slot.batch_size.size for slot in state.slots],
        read_bytes=batch.read_bytes,
        abandoned_at=batch.abandoned_at,
    )
