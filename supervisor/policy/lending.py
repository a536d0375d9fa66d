"""Who gets which items, how many at a time, and on what reservation.

An idle worker is offered, batch by batch in serving order:

1. an item that must run in a lease of one and needs no more than a worker's share (suspects; first those
   that an unclean stop found in progress);
2. ordinary items, as many as its batch size says, tapered near the end so that workers finish together.
   Such a lease reserves what nearly all items of its recipe take (`prediction`), at most what its worker may hold
   without being recycled for it. Items of a lease run one after another, so the lease reserves what one item may
   take, not their sum. An item that is predicted to take more comes back and is the next of the kind above;
3. when no batch has ordinary items left (or too many large ones wait), a large item: one whose prediction is
   above the share. It reserves what it needs, and waits until that is free. Nothing else is granted meanwhile
   once it is due, so that it cannot starve.

Nothing at all is granted while the pool is paused, outside its hours, draining, in emergency, or blind (no fresh
sample).
"""

from protocol.messages import Grant, Granted, ItemError, Root
from supervisor.policy.caching import steps_of
from supervisor.policy.commands import Command, FetchItems, Note, SettleItems, TellWorker
from supervisor.policy.confinement import give_way, holds, prepare, within
from supervisor.policy.items import Item, Settlement, detail_of_error
from supervisor.policy.levels import Level
from supervisor.policy.memory_leases import waits_for_model
from supervisor.policy.prediction.learning import ordinary_bytes, to_be_told, warming_bytes
from supervisor.policy.prediction.model import signature
from supervisor.policy.queue import SPECIALS_BEFORE_OTHERS, Batch
from supervisor.policy.sizes import human
from supervisor.policy.state import Lease, PoolState, Slot
from supervisor.policy.stopping import recycle
from supervisor.policy.worker import WorkerEvent, step

LARGE_MARGIN = 1.1
"""A large item reserves a tenth more than predicted: the prior is right to within a few percent at best."""
FRESH_ENOUGH_BYTES = 16 * 1024 * 1024
"""A worker holding more than this above its baseline is replaced (15 ms) before a large item, not trimmed."""
LEAST_ITEM_BYTES = 16 * 1024 * 1024
"""Beside what warming takes, a worker's first item may take so much."""
WORTH_REPLACING_BYTES = 1024 * 1024
"""An idle neighbour holding more than this above its baseline is replaced where a large item lacks the room."""


def lend(state: PoolState, now: float) -> list[Command]:
    """Fills windows and offers work to every idle worker."""
    commands: list[Command] = []
    full = state.queue.in_the_way()
    if full is not None:
        full.rewind({*state.away_ids(full), *full.settling_ids})
    # What is fetched may be found in the cache and settled without a lease: not while nothing shall go on.
    if not state.stands_still and not state.draining:
        commands += [_fetch(state, batch) for batch in state.queue.wants_fetch()]
    commands += prepare(state, now)
    if not may_admit(state, now) or state.queue.must_wait:
        return commands
    for slot in _idle(state):
        if state.level >= Level.CRITICAL and state.leases:
            break
        # An offer to one worker may have made another one leave.
        if slot.worker is not None and slot.worker.state == "IDLE" and _known(state, slot, now):
            commands += _offer(state, slot, now)
    return commands


def may_admit(state: PoolState, now: float) -> bool:
    """Tells whether any lease may be granted now."""
    return not (
        state.stands_still
        or state.draining
        or state.journal_stalled is not None
        or state.temp_full is not None
        or (state.level >= Level.EMERGENCY and state.leases)
        or not state.memory_known(now)
    )


def _fetch(state: PoolState, batch: Batch) -> FetchItems:
    batch.fetching = True
    return FetchItems(batch=batch.name, after=batch.cursor, limit=state.queue.fetch_items)


def _idle(state: PoolState) -> list[Slot]:
    return [slot for slot in state.slots if slot.wanted and slot.worker is not None and slot.worker.state == "IDLE"]


def _known(state: PoolState, slot: Slot, now: float) -> bool:
    """Tells whether the worker's own memory was seen lately: one that cannot be looked at gets nothing."""
    seen = slot.worker.sampled_at if slot.worker is not None else None
    return seen is not None and now - seen <= state.settings.sample_stale_seconds


def _offer(state: PoolState, slot: Slot, now: float) -> list[Command]:
    runnable = [
        batch for batch in state.queue.runnable() if not waits_for_model(state, slot, batch.record.recipe.name, now)
    ]
    if not runnable:
        return []
    part = state.limits(slot).item_bytes
    free = state.free_bytes(slot) if state.leases else part
    large_due = any(len(batch.special) > SPECIALS_BEFORE_OTHERS for batch in runnable)
    for batch in runnable:
        single = _single(batch, part) if batch.special else None
        if single is None and large_due:
            continue
        if single is not None or batch.front or batch.ready:
            # A new worker's first image warms its libraries too, which no prediction of the image knows.
            warm = slot.worker is not None and slot.worker.items_done
            reserved = ordinary_bytes(state, batch.record.recipe, part) if warm else part
            if single is not None:
                reserved = min(part, max(reserved, int(single.needs_bytes * LARGE_MARGIN)))
            warming = 0 if warm else warming_bytes(state, slot, batch.record.recipe)
            if warming and reserved + warming > part:
                # An image that came back with a figure would come back again from less than that.
                known = int(single.needs_bytes * LARGE_MARGIN) if single is not None else 0
                first = min(part, max(LEAST_ITEM_BYTES, known))
                return _warm_up(state, slot, batch, single, first + warming, now)
            if free < reserved:
                return []
            items = _take(state, slot, batch, single)
            if not items:
                return give_way(state, slot, batch, now)
            return [_grant(state, slot, batch, items, reserved, False, now)]
        if batch.fetching or batch.looking:
            return []
    for batch in runnable:
        if batch.special:
            return _offer_large(state, slot, batch, now)
    return []


def _warm_up(state: PoolState, slot: Slot, batch: Batch, single: Item | None, needs: int, now: float) -> list[Command]:
    """Grants the first item to a worker of which is known that warm it will hold more than its part: on a reservation
    of its own, or, where nobody works, with all there is. Where there is never room for it, the others go on alone."""
    free = state.free_bytes(slot)
    reserved = needs if needs <= free else free
    if needs > free and (state.leases or any(other.worker and other.worker.items_done for other in _idle(state))):
        held = human(needs + (slot.worker.baseline_bytes if slot.worker else 0))
        slot.note = (
            f"waits: a worker warm under recipe {batch.record.recipe.name} holds about {held}, of which {human(free)} "
            "are free; raise --memory or lower --workers"
        )
        return []
    slot.note = None
    items = _take(state, slot, batch, single, 1)
    return [_grant(state, slot, batch, items, reserved, True, now)] if items else give_way(state, slot, batch, now)


def _single(batch: Batch, part_bytes: int) -> Item | None:
    """Returns a special item that a worker's part is enough for."""
    return next((item for item in batch.special if item.needs_bytes <= part_bytes and not item.memory_charges), None)


def _take(state: PoolState, slot: Slot, batch: Batch, single: Item | None, most: int | None = None) -> list[Item]:
    """Removes what is next from the batch; nothing where the worker's sandbox does not hold it."""
    worker = slot.worker
    assert worker is not None
    if single is None:
        if state.stalled():
            most = 1
        limit = most or slot.batch_size.taper(state.queue.pending, state.places)
        return batch.take(within(state, worker, batch, limit))
    if not holds(state, worker, batch, single):
        return []
    batch.special.remove(single)
    return [single]


def _offer_large(state: PoolState, slot: Slot, batch: Batch, now: float) -> list[Command]:
    worker = slot.worker
    assert worker is not None
    free = state.free_bytes(slot)
    # What it holds under memory leases, such as a model, its successor would load again.
    at_rest = worker.baseline_bytes + state.memory_leases.reserved_bytes(slot.index)
    if worker.rss_bytes - at_rest > FRESH_ENOUGH_BYTES and worker.items_done:
        return recycle(
            state, slot, now, "large_image", "a large image is next, and a fresh worker has more room for it"
        )
    others_idle = not state.busy_elsewhere(slot)
    for item in list(batch.special):
        # After a death by memory the figure is a guess from that death: it never makes the image too large.
        room = state.fresh_room_bytes()
        needs = min(item.needs_bytes, room) if item.memory_charges else item.needs_bytes
        wanted = int(needs * LARGE_MARGIN)
        if not others_idle and (item.memory_charges or wanted > free):
            continue
        if needs > room:
            batch.special.remove(item)
            return refuse_too_large(state, batch, item, room)
        if needs > free and _on_the_move(state, slot):
            return []
        held = state.baselines_known.of(slot.index, signature(batch.record.recipe))
        if item.memory_charges and not worker.items_done and _warm_idle(state, held):
            return []
        if needs > free and (fat := _fattest_idle(state, slot, held)) is not None:
            why = "a large image is next and needs the memory this idle worker holds"
            return recycle(state, fat, now, "large_image", why)
        if not holds(state, worker, batch, item):
            return give_way(state, slot, batch, now)
        batch.special.remove(item)
        return [_grant(state, slot, batch, [item], max(free, needs) if others_idle else wanted, True, now)]
    return []


def _on_the_move(state: PoolState, me: Slot) -> bool:
    """Tells whether another worker is coming or going: what it will hold or give back is not known yet."""
    return any(slot.worker is not None and slot is not me and slot.worker.state != "IDLE" for slot in state.slots)


def _warm_idle(state: PoolState, held_bytes: int) -> bool:
    """Tells whether an idle worker holds what the recipe makes every worker hold: an image that is tried again goes to
    it, since a new one beside it would need that much once more."""
    if held_bytes <= state.slimmest_bytes() + FRESH_ENOUGH_BYTES:
        return False
    return any(
        slot.worker is not None and slot.worker.items_done and slot.worker.rss_bytes > held_bytes - FRESH_ENOUGH_BYTES
        for slot in _idle(state)
    )


def _fattest_idle(state: PoolState, me: Slot, held_bytes: int) -> Slot | None:
    """Returns the idle worker that a replacement would make slimmer by most, None where none is worth it. My own
    successor would hold what the recipe keeps as well."""

    def excess(slot: Slot) -> int:
        slimmest = state.slimmest_bytes()
        rss_bytes = slot.worker.rss_bytes if slot.worker is not None else 0
        return rss_bytes - (max(slimmest, held_bytes) if slot is me else slimmest)

    fat = [
        slot
        for slot in _idle(state)
        if slot.worker is not None and slot.worker.items_done and excess(slot) > WORTH_REPLACING_BYTES
    ]
    return max(fat, key=excess, default=None)


def refuse_too_large(state: PoolState, batch: Batch, item: Item, room: int) -> list[Command]:
    """Fails an item that can never fit, with both figures."""
    path = batch.path(item)
    message = (
        f"{path}: needs about {human(item.needs_bytes)} to process, and {human(room)} is all that one image can have "
        f"under a budget of {human(state.budget_bytes)}; raise --memory or lower --workers"
    )
    batch.settles(item.id)
    settlement = Settlement(
        id=item.id,
        batch=batch.name,
        state="failed",
        tries=item.tries - 1,
        identity=item.identity,
        detail=detail_of_error(ItemError(kind="too_large", message=message)),
    )
    return [
        SettleItems(settlements=[settlement]),
        Note(
            kind="too_large",
            message=message,
            batch=batch.name,
            path=path,
            figures={"needs_bytes": item.needs_bytes, "room_bytes": room, "budget_bytes": state.budget_bytes},
        ),
    ]


def _grant(
    state: PoolState, slot: Slot, batch: Batch, items: list[Item], reserved: int, large: bool, now: float
) -> TellWorker:
    worker = slot.worker
    assert worker is not None
    step(worker, WorkerEvent.GRANTED)
    state.lease_number += 1
    lease = Lease(
        number=state.lease_number,
        slot=slot.index,
        batch=batch.name,
        items={item.id: item for item in items},
        size=len(items),
        granted_at=now,
        reserved_bytes=reserved,
        large=large,
    )
    state.leases[lease.number] = lease
    worker.lease = lease.number
    worker.progress_at = now
    worker.deadline = None
    slot.last_batch = batch.name
    batch.leased += len(items)
    if batch.began_at is None:
        batch.began_at = now
    batch.peak_bytes = max(batch.peak_bytes, state.used_bytes)
    watch = state.settings.watch
    if state.sample_at > now + watch.interval_max_seconds:
        # The pool was idle and is looked at as seldom: at 1 GB/s that would be a gigabyte unseen.
        state.sample_at = now + watch.interval_min_seconds
    record = batch.record
    return TellWorker(
        slot=slot.index,
        incarnation=worker.incarnation,
        message=Grant(
            lease=lease.number,
            batch=batch.name,
            recipe=record.recipe,
            out=record.out,
            overwrite=record.overwrite,
            strict=record.strict,
            submitted_at=record.opened_at,
            memory_bytes=reserved,
            factors=to_be_told(state, worker, record.recipe),
            cache=bool(steps_of(state, batch)),
            roots=[Root(root, prefix) for root, prefix in batch.roots],
            items=[Granted(item.id, item.root, item.stem, item.owned, item.shunned) for item in items],
        ),
    )
