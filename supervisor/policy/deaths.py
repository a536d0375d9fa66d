"""Starts and ends of workers: what a death costs whom, and when the slot gets its next worker.

Only the item that the flight recorder names is charged; the rest of the lease goes back to the front of the
queue. A planned end charges nobody.
"""

from protocol.messages import ItemError, LastDeath
from supervisor.policy import blame, memory_leases
from supervisor.policy.blame import Death, Fate
from supervisor.policy.commands import BuryWorker, ChargeItems, Command, Note, SettleItems, StartWorker
from supervisor.policy.confinement import NO_ROOTS, roots_at_hand
from supervisor.policy.counted import counted
from supervisor.policy.events import StartFailed, TemplateDied, WorkerExited, WorkerStarted
from supervisor.policy.items import Charge, Item, QuarantineFacts, Settlement, detail_of_error
from supervisor.policy.prediction.model import signature
from supervisor.policy.queue import Batch
from supervisor.policy.reports import end_if_complete
from supervisor.policy.state import Lease, PoolState, Slot
from supervisor.policy.stopping import carry_out, kill_worker, stop_worker
from supervisor.policy.worker import Worker, WorkerEvent, step

PLANNED = frozenset({"recycle", "drain", "rest"})


def start_due(state: PoolState, now: float) -> list[Command]:
    """Starts a worker in every empty slot whose time has come."""
    commands: list[Command] = []
    for slot in state.slots:
        if slot.worker is None and slot.wanted and slot.start_at is not None and now >= slot.start_at:
            slot.start_at = None
            slot.incarnation += 1
            roots = roots_at_hand(state) if state.settings.confined else NO_ROOTS
            slot.worker = Worker(
                slot=slot.index,
                incarnation=slot.incarnation,
                started_at=now,
                deadline=now + state.settings.start_timeout_seconds,
                roots_read=roots.read,
                roots_write=roots.write,
            )
            commands.append(
                StartWorker(
                    slot=slot.index,
                    incarnation=slot.incarnation,
                    roots_read=sorted(roots.read),
                    roots_write=sorted(roots.write),
                )
            )
    return commands


def on_started(state: PoolState, event: WorkerStarted, now: float) -> list[Command]:
    """The process exists; if it was unwanted meanwhile it is stopped now that it can be."""
    slot = state.slots[event.slot]
    worker = slot.worker
    if worker is None or worker.incarnation != event.incarnation:
        return []
    worker.pid = event.pid
    return []


def on_start_failed(state: PoolState, event: StartFailed, now: float) -> list[Command]:
    """No process could be made: told with the reason, tried again later and later."""
    slot = state.slots[event.slot]
    worker = slot.worker
    if worker is None or worker.incarnation != event.incarnation:
        return []
    slot.worker = None
    slot.note = f"cannot start: {event.reason}"
    slot.last_death = LastDeath(cause="start_failed", at=state.epoch(now))
    state.tallies.died("start_failed")
    delay = slot.restarting.died(now, 0, state.random)
    slot.start_at = now + delay if slot.wanted else None
    return [
        Note(
            kind="start_failed",
            slot=slot.index,
            message=f"worker {slot.index} cannot start (next try in {delay:.1f} s): {event.reason}",
            figures={"delay_seconds": delay},
        )
    ]


def on_template_died(state: PoolState, event: TemplateDied, now: float) -> list[Command]:
    """Workers of a dead template are drained: their parent-death signal is on its way, and nobody could tell
    how they ended. New ones come from a new template."""
    commands: list[Command] = [Note(kind="template_died", message=f"the template process is gone: {event.reason}")]
    for slot in state.slots:
        commands += stop_worker(state, slot, "template_died", now)
    return commands


def on_exited(state: PoolState, event: WorkerExited, now: float) -> list[Command]:
    """Loses the lease, blames, buries, and decides on the replacement."""
    slot = state.slots[event.slot]
    worker = slot.worker
    if worker is None or worker.incarnation != event.incarnation:
        return []
    killed = worker.state == "KILLING"
    step(worker, WorkerEvent.EXITED)
    soft = state.limits(slot).soft_bytes if worker.baseline_bytes else 0
    death = blame.find_cause(worker.cause, killed, event.exit_code, event.oom_kills, worker.rss_bytes, soft)
    commands: list[Command] = [
        BuryWorker(slot=slot.index, incarnation=worker.incarnation, partial=event.partial),
        _note_death(slot, worker, death, event),
    ]
    lease = state.lease_of(worker)
    if lease is not None:
        if death.cause == "hard_limit" and not worker.items_done and not lease.settled:
            batch = state.queue.batches[lease.batch]
            state.baselines_known.died_cold(signature(batch.record.recipe), worker.peak_bytes)
        commands += _lose_lease(state, slot, worker, lease, death, event, now)
    commands += _count_death(state, slot, worker, death, event, now)
    commands += memory_leases.forget_worker(state, slot.index)
    slot.worker = None
    slot.growth.forget()
    return commands


def _note_death(slot: Slot, worker: Worker, death: Death, event: WorkerExited) -> Note:
    planned = death.cause in PLANNED and death.exit_code == 0
    return Note(
        kind="stopped" if planned else "death",
        slot=slot.index,
        batch=slot.last_batch,
        path=event.path or None if event.item else None,
        message=f"worker {slot.index} (pid {worker.pid}) ended: {death.cause}",
        figures={
            "cause": death.cause,
            "signal": death.signal,
            "exit_code": death.exit_code,
            "rss_bytes": worker.rss_bytes,
            "peak_bytes": worker.peak_bytes,
            "items_done": worker.items_done,
            "item": event.item,
            "oom_kills": event.oom_kills,
        },
    )


def _count_death(
    state: PoolState, slot: Slot, worker: Worker, death: Death, event: WorkerExited, now: float
) -> list[Command]:
    batch = state.queue.batches.get(slot.last_batch or "")
    if batch is not None and event.oom_kills:
        batch.oom_kills += event.oom_kills
    if death.cause not in PLANNED:
        slot.last_death = LastDeath(cause=death.cause, at=state.epoch(now))
    if not slot.wanted:
        slot.start_at = None
        return []
    if death.cause in PLANNED:
        slot.start_at = now
        return []
    slot.restarts += 1
    state.totals["restarts"] += 1
    state.tallies.died(death.cause)
    if batch is not None:
        batch.restarts += 1
    # Somebody else's kill says nothing about whether a worker can start: it is replaced at once.
    outside = death.cause == "killed_outside"
    delay = 0.0 if outside else slot.restarting.died(now, worker.items_done, state.random)
    slot.start_at = now + delay
    slot.note = f"restarts in {delay:.1f} s after dying early: {death.cause}" if delay else None
    if not delay:
        return []
    figures: dict[str, object] = {"delay_seconds": delay, "cause": death.cause}
    return [Note(kind="restart_loop", slot=slot.index, message=f"worker {slot.index} {slot.note}", figures=figures)]


def _lose_lease(
    state: PoolState, slot: Slot, worker: Worker, lease: Lease, death: Death, event: WorkerExited, now: float
) -> list[Command]:
    batch = state.queue.batches[lease.batch]
    del state.leases[lease.number]
    worker.lease = None
    batch.leased -= len(lease.items)
    culprit = lease.items.pop(event.item, None)
    batch.give_back(list(lease.items.values()))
    commands: list[Command] = []
    if culprit is not None:
        commands += _judge(state, slot, worker, batch, lease, culprit, death, event)
    commands.append(
        Note(
            kind="lease_lost",
            slot=slot.index,
            batch=batch.name,
            message=f"lease of worker {slot.index} lost ({death.cause}): {counted(len(lease.items), 'item')} back "
            "in the queue, uncharged",
            figures={"returned": len(lease.items), "settled": lease.settled, "cause": death.cause},
        )
    )
    return commands + end_if_complete(state, batch, now)


def _judge(
    state: PoolState,
    slot: Slot,
    worker: Worker,
    batch: Batch,
    lease: Lease,
    item: Item,
    death: Death,
    event: WorkerExited,
) -> list[Command]:
    charge = blame.charge_for(death.cause)
    fate = blame.judge(item, charge, state.settings.timeout_tries)
    path = batch.path(item)
    if fate is Fate.QUARANTINE:
        return quarantine(state, slot, batch, item, death, _evidence(worker, death, event, lease), event)
    if charge is blame.Charge.MEMORY:
        guess = max(2 * lease.reserved_bytes, worker.peak_bytes - worker.baseline_bytes)
        # A guess, not a prediction: it never makes an item too large for a retry with all there is.
        item.needs_bytes = max(item.needs_bytes, min(guess, state.fresh_room_bytes()))
    batch.give_back([item])
    return [
        ChargeItems(charges=[charge_row(item)]),
        Note(
            kind="returned" if fate is Fate.BACK else "charged",
            slot=slot.index,
            batch=batch.name,
            path=path,
            message=f"{path} {blame.sentence(death, event.step)}; it goes {fate.value}",
            figures={"charge": charge.value, "tries": item.tries, "needs_bytes": item.needs_bytes},
        ),
    ]


def charge_row(item: Item) -> Charge:
    """Returns the item's counts for the journal."""
    return Charge(
        id=item.id,
        charges=item.charges,
        memory_charges=item.memory_charges,
        outside_kills=item.outside_kills,
        unclean_stops=item.unclean_stops,
        needs_bytes=item.needs_bytes,
    )


def _evidence(worker: Worker, death: Death, event: WorkerExited, lease: Lease) -> dict[str, object]:
    return {
        "cause": death.cause,
        "signal": death.signal,
        "exit_code": death.exit_code,
        "step": event.step,
        "slot": worker.slot,
        "pid": worker.pid,
        "baseline_bytes": worker.baseline_bytes,
        "peak_bytes": worker.peak_bytes,
        "reserved_bytes": lease.reserved_bytes,
        "rss_curve": [[round(at - worker.started_at, 3), rss] for at, rss in worker.curve],
    }


def quarantine(
    state: PoolState,
    slot: Slot | None,
    batch: Batch,
    item: Item,
    death: Death,
    evidence: dict[str, object],
    event: WorkerExited | None = None,
) -> list[Command]:
    """Settles an item as quarantined, with its evidence; the image is remembered over batches."""
    path = batch.path(item)
    deaths = item.charges + item.memory_charges + item.outside_kills + item.unclean_stops
    kind = blame.error_kind(death.cause)
    after = "1 death" if deaths == 1 else f"{deaths} deaths"
    message = f"{path} {blame.sentence(death, event.step if event else -1)}; quarantined after {after}"
    batch.settles(item.id)
    settlement = Settlement(
        id=item.id,
        batch=batch.name,
        state="quarantined",
        tries=deaths,
        slot=slot.index if slot is not None else None,
        peak_bytes=slot.worker.peak_bytes if slot is not None and slot.worker is not None else 0,
        detail=detail_of_error(ItemError(kind=kind, message=message)),
        identity=item.identity,
        quarantine=QuarantineFacts(
            kind=kind,
            message=message,
            recipe=batch.record.recipe.name,
            size_bytes=event.size_bytes if event else 0,
            mtime_ns=event.mtime_ns if event else 0,
            version=event.version if event else "",
            evidence=evidence,
        ),
    )
    return [
        SettleItems(settlements=[settlement]),
        Note(
            kind="quarantined",
            slot=slot.index if slot is not None else None,
            batch=batch.name,
            path=path,
            message=message,
            figures=evidence,
        ),
    ]


def overdue(state: PoolState, now: float) -> list[Command]:
    """Takes the workers whose state has lasted too long one step further."""
    commands: list[Command] = []
    for slot in state.slots:
        worker = slot.worker
        if worker is None or worker.deadline is None or now < worker.deadline:
            continue
        if worker.state == "STARTING":
            worker.cause = worker.cause or "start_timeout"
            slot.note = f"was not ready within {state.settings.start_timeout_seconds:.0f} s"
        elif worker.state == "DRAINING" and worker.cause == "drain":
            commands += kill_worker(state, slot, "drain", now)
            continue
        commands += carry_out(state, slot, step(worker, WorkerEvent.DEADLINE_PASSED), now)
    return commands
