"""Which roots a worker's sandbox holds, and when it must give way to another worker.

A sandbox is made at a worker's start and can only be tightened. So a start names the roots of the batches at hand,
and a lease is granted only within them; a worker whose rules lack what is next is replaced, which costs
some 15 ms. What an item *needs* is one path token:

* the root it was submitted under, as a rule;
* the file itself, where that root is the whole file system (files named singly or in lists), or where a worker
  reported the file to be outside its rules although its root is in them: a link that leads elsewhere, a file put in
  the place of the one the rules were made for.

Workers of a pool without work have no roots at all. They are replaced as soon as a batch has one, while its
items are still being submitted and read, so that its first lease need not wait for it.
"""

from collections.abc import Iterator
from itertools import chain, islice

import msgspec

from protocol.messages import ItemError
from supervisor.policy.commands import Command, Note, SettleItems
from supervisor.policy.items import Item, Settlement, detail_of_error
from supervisor.policy.queue import Batch
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.stopping import recycle, stop_worker
from supervisor.policy.worker import Worker

NEEDS_MAX = 512
"""Paths that a worker's rules may hold: each costs some 5 µs of its start, and more leases until it is replaced."""
AHEAD_ITEMS = 256
"""So many of the next items of a batch, and of those that run alone, are looked at for what they need."""
OUTSIDE_TRIES = 2
"""An item outside of rules that were made for it (twice, because the file may have been replaced in between) fails."""
EVERYTHING = "/"


class Roots(msgspec.Struct, frozen=True):
    """Path tokens: what may be read, and below which directories may be written."""

    read: frozenset[str]
    write: frozenset[str]


NO_ROOTS = Roots(frozenset(), frozenset())


def need(batch: Batch, item: Item) -> str:
    """Returns what the rules of a worker must hold for this item."""
    root = batch.roots[item.root][0]
    return batch.path(item) if root == EVERYTHING or item.outside else root


def roots_at_hand(state: PoolState) -> Roots:
    """Returns what a worker that starts now should have: first what comes next, in serving order, up to NEEDS_MAX."""
    read: dict[str, None] = {}
    write: dict[str, None] = {}
    for batch in state.queue.runnable():
        if len(read) >= NEEDS_MAX or len(write) >= NEEDS_MAX:
            break
        for path in chain(_ahead(batch), (root for root, _ in batch.roots if root != EVERYTHING)):
            if len(read) >= NEEDS_MAX:
                break
            read[path] = None
        if batch.record.out is not None:
            write[batch.record.out] = None
    return Roots(frozenset(read), frozenset(write))


def _ahead(batch: Batch) -> Iterator[str]:
    items = chain(islice(batch.special, AHEAD_ITEMS), islice(chain(batch.front, batch.ready), AHEAD_ITEMS))
    return (need(batch, item) for item in items)


def prepare(state: PoolState, now: float) -> list[Command]:
    """Replaces idle workers that have neither worked nor any root, once there is one to have."""
    if not state.settings.confined:
        return []
    bare = [slot for slot in state.slots if slot.worker is not None and _is_bare(slot.worker)]
    if not bare or not any(batch.pending for batch in state.queue.runnable()) or not roots_at_hand(state).read:
        return []
    commands: list[Command] = []
    for slot in bare:
        commands += _replace(state, slot, now, "it was started before there was anything to read")
    return commands


def _is_bare(worker: Worker) -> bool:
    return worker.state == "IDLE" and not worker.items_done and not worker.roots_read


def within(state: PoolState, worker: Worker, batch: Batch, limit: int) -> int:
    """Returns how many of the batch's next ordinary items, up to `limit`, are within the worker's rules."""
    if not state.settings.confined:
        return limit
    if not _may_write(worker, batch):
        return 0
    plain = all(root in worker.roots_read for root, _ in batch.roots)
    if plain and not any(item.outside for item in islice(batch.front, limit)):
        return limit
    for count, item in enumerate(islice(chain(batch.front, batch.ready), limit)):
        if need(batch, item) not in worker.roots_read:
            return count
    return limit


def holds(state: PoolState, worker: Worker, batch: Batch, item: Item) -> bool:
    """Tells whether an item is within the worker's rules."""
    return not state.settings.confined or (_may_write(worker, batch) and need(batch, item) in worker.roots_read)


def _may_write(worker: Worker, batch: Batch) -> bool:
    return batch.record.out is None or batch.record.out in worker.roots_write


def give_way(state: PoolState, slot: Slot, batch: Batch, now: float) -> list[Command]:
    """Replaces a worker by one that may do what is next in the batch."""
    return _replace(state, slot, now, f"its sandbox does not hold what is next in batch {batch.name}")


def _replace(state: PoolState, slot: Slot, now: float, why: str) -> list[Command]:
    worker = slot.worker
    assert worker is not None
    if worker.items_done:
        return recycle(state, slot, now, "sandbox_roots", why)
    # It has done nothing yet: its start is completed rather than its life ended, and is counted as neither.
    note = Note(kind="sandbox_roots", slot=slot.index, message=f"worker {slot.index} is started afresh: {why}")
    return [note, *stop_worker(state, slot, "recycle", now)]


def on_outside(batch: Batch, slot: Slot, item: Item, error: ItemError | None) -> list[Command]:
    """An item whose file the worker's sandbox hides: it goes first, to a worker whose rules name the file itself."""
    item.outside += 1
    path = batch.path(item)
    if item.outside <= OUTSIDE_TRIES:
        batch.give_back([item])
        return [
            Note(
                kind="outside",
                slot=slot.index,
                batch=batch.name,
                path=path,
                message=f"{path} lies outside the sandbox of worker {slot.index} (a link?); a worker is made for it",
                figures={"times": item.outside},
            )
        ]
    told = error.message if error is not None else f"{path} cannot be read"
    message = f"{told}; the sandbox keeps it from every worker, --sandbox off would not"
    batch.settles(item.id)
    settlement = Settlement(
        id=item.id,
        batch=batch.name,
        state="failed",
        tries=item.tries,
        slot=slot.index,
        identity=item.identity,
        detail=detail_of_error(ItemError(kind="io", message=message)),
    )
    return [SettleItems(settlements=[settlement])]


def on_machine_error(worker: Worker, batch: Batch) -> None:
    """What could not be written may have been made anew since: the next try gets fresh rules for it."""
    if batch.record.out is not None:
        worker.roots_write = worker.roots_write - {batch.record.out}
