"""What a worker says, and what follows from it.

A report is checked against the lease it names: an item that was not leased, or was reported before, is a lie,
and the liar is killed. A report for a lease that is no longer the worker's (it was lost meanwhile) is stale and
ignored: its items have gone back to the queue, and doing one twice has the same effect as doing it once.
"""

from typing import assert_never

from protocol import messages as m
from protocol.messages import AnyFromWorker, Heartbeat, ItemError, ItemReport, Memory, Ready, Report, Trimmed
from supervisor.policy import cleanup, collecting, leaks, memory_leases
from supervisor.policy.commands import ChangeBatch, Command, Note, SettleItems
from supervisor.policy.confinement import on_machine_error, on_outside
from supervisor.policy.counted import counted
from supervisor.policy.events import WorkerBabbled, WorkerSaid
from supervisor.policy.items import Item, Settlement, detail_of, detail_of_error, made_of
from supervisor.policy.lending import refuse_too_large
from supervisor.policy.prediction.learning import learn
from supervisor.policy.prediction.model import signature
from supervisor.policy.profiling import on_profiled
from supervisor.policy.queue import Batch
from supervisor.policy.sizes import human
from supervisor.policy.state import Lease, PoolState, Slot
from supervisor.policy.stopping import carry_out, kill_worker, recycle
from supervisor.policy.worker import IllegalEvent, Worker, WorkerEvent, step

MACHINE_PAUSE_SECONDS = 2.0
"""First pause after an error of the machine; doubled each time, up to MACHINE_PAUSE_LONGEST_SECONDS."""
MACHINE_PAUSE_LONGEST_SECONDS = 60.0
BOUNDARIES_FOR_BASELINE = 5
"""The baseline is the least RSS at the first item boundaries: libraries are warm, no image is held. Until so many
are known that of the fresh worker counts: after a first item that was large, its memory is not back yet, and taken
for the baseline it would make the room of all look too small for the next large one."""
TRIM_USELESS = 0.10
"""FEATURES M8: a trim that gives back less than this part of what the worker has above its baseline is useless."""


OfLeases = m.RequestMemory | m.ReleaseMemory | m.RenewMemory | m.ModelLoaded | m.ModelUnloaded
IMPOSSIBLE_BYTES = 1 << 47
"""The address space of a process on today's 64-bit machines."""


class Lie(Exception):
    """A worker's report that cannot be true."""


def on_said(state: PoolState, event: WorkerSaid, now: float) -> list[Command]:
    """Takes in a worker's message; one that its state does not allow ends the worker."""
    slot = state.slots[event.slot] if 0 <= event.slot < len(state.slots) else None
    worker = slot.worker if slot is not None else None
    if slot is None or worker is None or worker.incarnation != event.incarnation:
        return []
    try:
        _must_be_sizes(event.message)
        match event.message:
            case Ready() as ready:
                return _on_ready(state, slot, worker, ready, now)
            case Heartbeat() as heartbeat:
                worker.heap_bytes = heartbeat.memory.heap_bytes
                worker.native_bytes = heartbeat.memory.native_bytes
                worker.kept_bytes = heartbeat.memory.kept_bytes
                return []
            case Report() as report:
                return _on_report(state, slot, worker, report, now)
            case Trimmed() as trimmed:
                return _on_trimmed(state, slot, worker, trimmed, now)
            case m.Profiled() as profiled:
                return on_profiled(state, slot, profiled)
            case _ as told:
                return _on_memory_told(state, slot, worker, told, now)
    except (IllegalEvent, Lie) as fault:
        return on_babble(state, WorkerBabbled(slot=event.slot, incarnation=event.incarnation, fault=str(fault)), now)


def _on_memory_told(state: PoolState, slot: Slot, worker: Worker, told: OfLeases, now: float) -> list[Command]:
    """What concerns memory leases and models; of a worker that is being killed it does not matter any more."""
    if worker.state == "KILLING":
        return []
    match told:
        case m.RequestMemory():
            return memory_leases.on_request(state, slot, worker, told, now)
        case m.ReleaseMemory():
            return memory_leases.on_release(state, worker, told)
        case m.RenewMemory():
            return memory_leases.on_renew(state, worker, told, now)
        case m.ModelLoaded():
            return memory_leases.on_model(state, worker, told, now)
        case m.ModelUnloaded():
            return memory_leases.on_model_gone(state, worker, told)
    assert_never(told)


def _must_be_sizes(message: AnyFromWorker) -> None:
    """Raises Lie for figures that are no sizes of a process: limits of all workers are made from them."""
    match message:
        case Trimmed():
            figures = [message.before_bytes, message.after_bytes]
        case m.Profiled():
            return
        case m.RequestMemory() | m.ModelLoaded():
            figures = [message.bytes, message.within_bytes]
        case m.ModelUnloaded():
            figures = [message.bytes]
        case m.ReleaseMemory() | m.RenewMemory():
            return
        case _:
            memory = message.memory
            figures = [memory.rss_bytes, memory.heap_bytes, memory.native_bytes, memory.kept_bytes]
    if min(figures) < 0 or max(figures) > IMPOSSIBLE_BYTES:
        raise Lie(f"it says that its memory is {figures} bytes")


def on_babble(state: PoolState, event: WorkerBabbled, now: float) -> list[Command]:
    """Ends a worker that broke the protocol."""
    slot = state.slots[event.slot] if 0 <= event.slot < len(state.slots) else None
    if slot is None or slot.worker is None or slot.worker.incarnation != event.incarnation:
        return []
    note = Note(
        kind="protocol",
        slot=slot.index,
        message=f"worker {slot.index} broke the protocol and is killed: {event.fault}",
        figures={"state": slot.worker.state},
    )
    return [note, *kill_worker(state, slot, "protocol", now)]


def _on_ready(state: PoolState, slot: Slot, worker: Worker, ready: Ready, now: float) -> list[Command]:
    step(worker, WorkerEvent.READY)
    if worker.state == "IDLE":
        worker.deadline = None
    worker.rss_bytes = worker.baseline_bytes = ready.memory.rss_bytes
    worker.sampled_at = now
    worker.heap_bytes = ready.memory.heap_bytes
    worker.native_bytes = ready.memory.native_bytes
    worker.kept_bytes = ready.memory.kept_bytes
    worker.progress_at = now
    worker.sandbox = ready.sandbox
    slot.note = None
    state.sample_at = min(state.sample_at, now)
    return []


def _on_report(state: PoolState, slot: Slot, worker: Worker, report: Report, now: float) -> list[Command]:
    lease = state.lease_of(worker)
    if lease is None or lease.number != report.lease:
        return []
    batch = state.queue.batches[lease.batch]
    commands: list[Command] = []
    settlements: list[Settlement] = []
    _must_be_possible(lease, report)
    for said in report.items:
        item = lease.items.pop(said.id)
        batch.leased -= 1
        match said.outcome:
            case "done" | "failed":
                settlements.append(_settle(batch, slot, item, said))
            case "deferred":
                commands += _on_deferred(state, slot, batch, lease, item, said)
            case "shunned":
                settlements.append(_settle_shunned(batch, slot, item))
            case "machine":
                on_machine_error(worker, batch)
                given_up = _given_up(state, batch, slot, item, said, now)
                refused = said.error is not None and said.error.kind == "memory"
                if given_up is not None:
                    settlements.append(given_up)
                elif refused and memory_leases.model_elsewhere(state, slot):
                    batch.give_back([item])
                    commands += memory_leases.leave_to_others(state, slot, batch.record.recipe.name, now)
                else:
                    commands += _on_machine_error(batch, item, said, now)
            case "outside":
                commands += on_outside(batch, slot, item, said.error)
    learn(state, batch, report.items)
    steps = [each.operation for each in batch.record.recipe.steps]
    name = batch.record.recipe.name
    commands += leaks.on_items(state, slot, worker, name, steps, report.items, report.memory, now)
    worker.progress_at = now
    worker.heap_bytes = report.memory.heap_bytes
    worker.native_bytes = report.memory.native_bytes
    worker.kept_bytes = report.memory.kept_bytes
    if settlements:
        commands.append(SettleItems(settlements=settlements))
        _count_settled(slot, worker, lease, len(settlements))
    _learn_baseline(state, slot, worker, batch, report.memory)
    if report.handed_back:
        commands += _on_handed_back(slot, batch, lease, report.handed_back)
    if report.finished:
        commands += _end_lease(state, slot, worker, lease, batch, now)
    return commands


def _must_be_possible(lease: Lease, report: Report) -> None:
    """Raises Lie before anything of a report is believed: a half of one must not count."""
    seen: set[int] = set()
    for number in [*(said.id for said in report.items), *report.handed_back]:
        if number in seen or number not in lease.items:
            raise Lie(f"it reported item {number}, which is not (or no longer) in its lease {lease.number}")
        seen.add(number)
    if report.finished and len(seen) < len(lease.items):
        missing = len(lease.items) - len(seen)
        raise Lie(f"it called lease {lease.number} finished with {missing} items not accounted for")


def _settle(batch: Batch, slot: Slot, item: Item, said: ItemReport) -> Settlement:
    detail = detail_of(said)
    batch.settles(item.id, len(detail))
    batch.read_bytes += said.size_bytes
    return Settlement(
        id=item.id,
        batch=batch.name,
        state="done" if said.outcome == "done" else "failed",
        tries=item.tries,
        seconds=said.seconds,
        peak_bytes=said.peak_bytes,
        slot=slot.index,
        detail=detail,
        written=said.written,
        identity=item.identity,
        made=made_of(said, item.stem),
    )


def _settle_shunned(batch: Batch, slot: Slot, item: Item) -> Settlement:
    batch.settles(item.id)
    message = (
        f"{batch.path(item)}: in quarantine and unchanged since; it was not opened. 'supervisor quarantine show' "
        "tells why, 'supervisor quarantine retry' tries it again"
    )
    error = ItemError(kind="crash", message=message)
    return Settlement(
        id=item.id,
        batch=batch.name,
        state="quarantined",
        tries=0,
        slot=slot.index,
        identity=item.identity,
        detail=detail_of_error(error),
    )


def _on_deferred(
    state: PoolState, slot: Slot, batch: Batch, lease: Lease, item: Item, said: ItemReport
) -> list[Command]:
    # Deferred means more than was reserved: a figure that says otherwise must not make it come back for ever.
    reserved = lease.reserved_bytes
    before = item.needs_bytes
    item.needs_bytes = said.needs_bytes if said.needs_bytes > reserved else reserved + reserved // 10 + 1
    room = state.fresh_room_bytes()
    if item.needs_bytes > room:
        return refuse_too_large(state, batch, item, room)
    batch.special.append(item)
    path = batch.path(item)
    part = state.limits(slot).item_bytes
    alone = "its turn alone" if item.needs_bytes > part else "a lease of its own"
    if before and (before > part) == (item.needs_bytes > part):
        return []  # it has been said that it waits for that
    return [
        Note(
            kind="deferred",
            slot=slot.index,
            batch=batch.name,
            path=path,
            message=f"{path} waits for {alone}: it needs about {human(item.needs_bytes)}, more than the "
            f"{human(reserved)} that were reserved for it",
            figures={"needs_bytes": item.needs_bytes, "share_bytes": state.share_bytes(), "room_bytes": room},
        )
    ]


def _given_up(
    state: PoolState, batch: Batch, slot: Slot, item: Item, said: ItemReport, now: float
) -> Settlement | None:
    """Fails an item for which memory is refused, where that has gone on for long, with no other item done meanwhile."""
    if said.error is None or said.error.kind != "memory":
        return None
    if batch.short_since is None:
        batch.short_since = now
    if now - batch.short_since < state.settings.leases.refused_seconds:
        return None
    batch.settles(item.id)
    message = (
        f"{batch.path(item)}: {said.error.message}; tried again for {now - batch.short_since:.0f} s; raise --memory or "
        "lower --workers"
    )
    return Settlement(
        id=item.id,
        batch=batch.name,
        state="failed",
        tries=item.tries,
        slot=slot.index,
        identity=item.identity,
        detail=detail_of_error(ItemError(kind="memory", message=message)),
    )


def _on_machine_error(batch: Batch, item: Item, said: ItemReport, now: float) -> list[Command]:
    batch.give_back([item])
    if batch.paused is not None or batch.cancelled:
        return []
    reason = said.error.message if said.error is not None else "the machine could not do it"
    delay = min(MACHINE_PAUSE_SECONDS * 2**batch.machine_pauses, MACHINE_PAUSE_LONGEST_SECONDS)
    batch.machine_pauses += 1
    batch.paused = reason
    batch.resume_at = now + delay
    return [
        Note(
            kind="machine_error",
            batch=batch.name,
            path=batch.path(item),
            message=f"batch {batch.name} is paused for {delay:.0f} s, then tried again: {reason}",
            figures={"pause_seconds": delay, "times": batch.machine_pauses},
        )
    ]


def _count_settled(slot: Slot, worker: Worker, lease: Lease, count: int) -> None:
    if not worker.items_done:
        slot.restarting.settled()
    worker.items_done += count
    slot.items_done += count
    lease.settled += count


def _learn_baseline(state: PoolState, slot: Slot, worker: Worker, batch: Batch, memory: Memory) -> None:
    """Takes the RSS at an item boundary in.

    What a worker holds there above its hard limit is no image's: the recipe keeps it (a model). It is the baseline at
    once, or the worker would be killed between two items for what its successor does as well.
    """
    if len(worker.boundary_bytes) >= BOUNDARIES_FOR_BASELINE or not memory.rss_bytes:
        return
    worker.boundary_bytes = [*worker.boundary_bytes, memory.rss_bytes]
    least = min(worker.boundary_bytes)
    known = len(worker.boundary_bytes) == BOUNDARIES_FOR_BASELINE
    hard = (
        worker.baseline_bytes
        + state.memory_leases.reserved_bytes(slot.index)
        + max(state.share_bytes(), state.settings.watch.smallest_allowance_bytes)
    )
    worker.baseline_bytes = least if known or least >= hard else min(worker.baseline_bytes, least)
    if known or least >= hard:
        # A model that a lease stands for is asked for by the next worker as well: it is not reserved twice.
        models = state.memory_leases.models.values()
        leased = sum(
            model.bytes for model in models if (model.slot, model.incarnation) == (slot.index, worker.incarnation)
        )
        state.baselines_known.learn(slot.index, signature(batch.record.recipe), max(1, least - leased))
    if known:
        memory_leases.baseline_known(state, worker)


def _on_handed_back(slot: Slot, batch: Batch, lease: Lease, ids: list[int]) -> list[Command]:
    items = [lease.items.pop(number) for number in ids]
    batch.leased -= len(items)
    batch.give_back(items)
    return [
        Note(
            kind="handed_back",
            slot=slot.index,
            batch=batch.name,
            message=f"worker {slot.index} handed {len(items)} of the {counted(lease.size, 'item')} of its lease back",
            figures={"handed_back": len(items), "lease_size": lease.size, "settled": lease.settled},
        )
    ]


def _end_lease(state: PoolState, slot: Slot, worker: Worker, lease: Lease, batch: Batch, now: float) -> list[Command]:
    if not lease.disturbed and lease.settled and not state.stalled():
        slot.batch_size.clean(lease.settled, now - lease.granted_at)
    del state.leases[lease.number]
    worker.lease = None
    effect = step(worker, WorkerEvent.SETTLED)
    commands = carry_out(state, slot, effect, now)
    commands += leaks.recycle_early(state, slot, worker, batch.record.recipe.name, now)
    return commands + end_if_complete(state, batch, now)


def _on_trimmed(state: PoolState, slot: Slot, worker: Worker, trimmed: Trimmed, now: float) -> list[Command]:
    worker.trimming = cleanup.awaits_another(state, slot, trimmed)
    cleanup.on_trimmed(state, slot, trimmed)
    collecting.on_trimmed(state, slot, worker, trimmed)
    freed = trimmed.before_bytes - trimmed.after_bytes
    excess = trimmed.before_bytes - worker.baseline_bytes - state.memory_leases.reserved_bytes(slot.index)
    figures: dict[str, object] = {
        "before_bytes": trimmed.before_bytes,
        "after_bytes": trimmed.after_bytes,
        "seconds": trimmed.seconds,
    }
    note = Note(
        kind="trimmed",
        slot=slot.index,
        message=f"trimming worker {slot.index} gave back {human(max(0, freed))}",
        figures=figures,
    )
    useless = excess > 0 and freed < excess * TRIM_USELESS and trimmed.after_bytes > state.limits(slot).soft_bytes
    # One that is still young has a successor that would do the same: its limit is widened, not its life shortened.
    if useless and worker.items_done >= state.settings.watch.min_items_between_recycles:
        why = f"trimming is useless: {human(max(0, freed))} came back of {human(excess)} above its baseline"
        return [note, *recycle(state, slot, now, "trim_useless", why, figures)]
    return [note]


def end_if_complete(state: PoolState, batch: Batch, now: float) -> list[Command]:
    """Sends the batch's end to the journal once everything in it is settled."""
    if not batch.complete or any(lease.batch == batch.name for lease in state.leases.values()):
        return []
    batch.closing = True
    batch.changing += 1
    # What was found in the cache may be settled between two samples, and had its use of memory all the same.
    batch.peak_bytes = max(batch.peak_bytes, state.used_bytes)
    state.changes += 1
    return [
        ChangeBatch(
            batch=batch.name,
            state="cancelled" if batch.cancelled else "finished",
            finished_at=state.epoch(now),
            summary=batch.so_far(now, state.budget_bytes),
        )
    ]
