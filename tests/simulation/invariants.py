"""What must hold after every event, whatever happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from protocol.messages import Grant, MemoryGranted
from supervisor.policy import commands as c
from supervisor.policy.memory_leases import limit_bytes
from supervisor.policy.queue import Batch
from tests.simulation.cache import content_of
from tests.simulation.crew import DEADLY
from tests.simulation.journal import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

HARMLESS = frozenset({"good", "slow", "leak", "machine", "once"})


def must(true: bool, message: str) -> None:
    """Raises Violation with the message unless it is true."""
    if not true:
        raise Violation(message)


def check(world: World) -> None:
    """The state of the pool, beside what is on disk."""
    state = world.pool.state
    for batch in state.queue.batches.values():
        _check_places(world, batch)
        _check_followers(world, batch)
    leased = Counter(slot.worker.lease for slot in state.slots if slot.worker is not None and slot.worker.lease)
    must(set(leased) == set(state.leases) and set(leased.values()) <= {1}, f"leases {state.leases} held as {leased}")
    for lease in state.leases.values():
        worker = state.slots[lease.slot].worker
        must(worker is not None and worker.lease == lease.number, f"lease {lease.number} is held by nobody")
        assert worker is not None
        must(worker.state in ("BUSY", "DRAINING", "KILLING"), f"a worker that is {worker.state} holds a lease")
    for slot in state.slots:
        worker = slot.worker
        must(worker is None or worker.state != "GONE", f"slot {slot.index} keeps a worker that is gone")
        must(worker is None or worker.state != "BUSY" or worker.lease is not None, f"slot {slot.index}: BUSY, no lease")
        if worker is not None and worker.state in ("STARTING", "DRAINING", "STOPPING", "KILLING"):
            must(worker.deadline is not None, f"a worker that is {worker.state} has no deadline")
        if worker is None and slot.wanted:
            must(slot.start_at is not None, f"slot {slot.index} is empty, wanted, and will never be filled")
    book = state.memory_leases
    owners = {(held.slot, held.incarnation) for held in book.held.values()}
    for index, incarnation in owners | {(model.slot, model.incarnation) for model in book.models.values()}:
        worker = state.slots[index].worker
        must(worker is not None and worker.incarnation == incarnation, f"leases of {index}.{incarnation} outlived it")
    for waiting in book.waiting:
        must(world.now < waiting.until, f"{waiting} has waited long enough")
        must(state.slots[waiting.slot].worker is not None, f"{waiting} is nobody's")
    for held in book.held.values():
        must(world.now < held.renewed_at + state.settings.leases.stale_seconds, f"{held} is stale and still held")
    told = None if world.disks is None else world.disks.told
    must(state.temp_full == told, f"the temp disk was told as {told}, and is taken as {state.temp_full}")
    most = state.settings.window_items + state.settings.workers * state.settings.batch_size_max + 64
    must(state.queue.windowed <= most, f"{state.queue.windowed} items in the window")
    must(state.inserts >= 0 and state.changes >= 0, f"{state.inserts} inserts, {state.changes} changes under way")


def _check_places(world: World, batch: Batch) -> None:
    """Each item of a batch is in exactly one place."""
    state = world.pool.state
    placed = [item.id for place in (batch.front, batch.ready, batch.special) for item in place]
    leased = [number for lease in state.leases.values() if lease.batch == batch.name for number in lease.items]
    must(batch.leased == len(leased), f"batch {batch.name} counts {batch.leased} leased items, {len(leased)} are")
    every = [*placed, *leased, *batch.settling_ids, *batch.looking, *batch.following]
    here = set(every)
    must(len(here) == len(every), f"batch {batch.name}: in two places: {[n for n in here if every.count(n) > 1]}")
    must(min(batch.counts.values()) >= 0 and batch.settled <= batch.items, f"batch {batch.name}: {batch.counts}")
    if batch.name not in world.journal.records or world.news.get(batch.name, 0) > 0:
        return  # the journal knows more than the pool has heard
    pending = set(world.journal.pending(batch.name))
    must(here <= pending, f"batch {batch.name}: {here - pending} are settled on disk, and at work")
    if batch.cancelled:
        return
    for number in pending:
        skipped = number <= batch.cursor or number in batch.away
        must(
            (number in here) == skipped, f"batch {batch.name}: item {number} is {'twice' if number in here else 'lost'}"
        )
    must(batch.settled == len(world.journal.of_batch[batch.name]) - len(pending), f"{batch.name}: {batch.counts}")


def _check_followers(world: World, batch: Batch) -> None:
    """Whoever waits for an identical item waits for one that will be over."""
    state = world.pool.state
    must(batch.coalescer.waiting == len(batch.following), f"{batch.coalescer.waiting} wait, {len(batch.following)} do")
    if not batch.following:
        return
    leased = (item for lease in state.leases.values() if lease.batch == batch.name for item in lease.items.values())
    over = {item.identity for place in (batch.front, batch.ready, batch.special, leased) for item in place}
    over |= {content_of(world.journal.rows[number].item.stem).encode() for number in batch.settling_ids}
    over |= set(batch.storing.values())
    for item in batch.following.values():
        must(item.identity in over, f"batch {batch.name}: {item.stem} waits for {item.identity!r}, which nobody is")


def check_commands(world: World, before: Mapping[int, str], commands: Sequence[c.Command]) -> None:
    """What was decided, against the state in which it was decided."""
    state = world.pool.state
    killed = 0
    for command in commands:
        match command:
            case c.TellWorker(message=Grant() as grant):
                _check_grant(world, command.slot, grant)
            case c.TellWorker(message=MemoryGranted(bytes=size)) if size:
                _check_memory_granted(world)
            case c.Note(kind="emergency"):
                killed += 1
                dying = [slot for slot, was in before.items() if was == "KILLING"]
                must(killed == 1 and not dying, f"a second victim while {dying} are dying")
            case c.SettleItems():
                for each in command.settlements:
                    if each.quarantine is not None:
                        deaths, unclean = world.deaths.get(each.id, 0), world.unclean.get(each.id, 0)
                        slow = each.quarantine.kind == "timeout" and deaths >= world.settings.timeout_tries
                        guilty = deaths >= 2 or unclean >= 3 or slow
                        must(guilty, f"item {each.id} is quarantined after {deaths} deaths, {unclean} unclean stops")
    must(state.exit_code is None or not state.leases, "the loop is left with leases")


def _check_memory_granted(world: World) -> None:
    state = world.pool.state
    out, limit = state.memory_leases.reserved_bytes(), limit_bytes(state)
    must(out <= limit, f"memory leases of {out} bytes are out, their pool has {limit}")
    reserved = sum(lease.reserved_bytes for lease in state.leases.values())
    must(reserved <= state.room_bytes() or len(state.leases) < 2, f"{reserved} bytes are reserved beside {out} leased")
    must(state.memory_known(world.now), "memory was leased blind")


def _check_grant(world: World, slot: int, grant: Grant) -> None:
    state = world.pool.state
    batch = state.queue.batches[grant.batch]
    must(state.paused is None and not state.draining and state.journal_stalled is None, "granted while paused")
    must(world.disks is None or world.disks.told is None, "granted while the temp disk is nearly full")
    must(state.memory_known(world.now), "granted blind")
    must(batch.paused is None and not batch.cancelled and not (batch.record.hold and batch.open), "granted while held")
    must(bool(grant.items), "an empty lease")
    must(batch.name not in world.journal.cancelled, f"batch {batch.name} was cancelled on disk, and goes on")
    if len(state.leases) > 1:
        reserved = sum(lease.reserved_bytes for lease in state.leases.values())
        must(reserved <= state.room_bytes(), f"{reserved} bytes are reserved, there is room for {state.room_bytes()}")
    if len(grant.items) > 1:
        items = state.leases[grant.lease].items.values()
        must(not any(item.suspect or item.needs_bytes for item in items), "a suspect is not alone")
    worker = world.crew.get(slot)
    if worker is not None and worker.alive and not worker.frozen:
        must(worker.ready and worker.grant is None, f"worker {slot} was granted a lease while it holds one")


def check_end(world: World) -> None:
    """Everything is over: every item has one verdict, and the right one."""
    journal = world.journal
    for client in world.clients:
        stems = {journal.rows[number].item.stem for number in journal.of_batch.get(client.name, ())}
        must(client.acknowledged <= stems, f"acknowledged and lost: {client.acknowledged - stems}")
    for name, record in journal.records.items():
        counts = journal.record(name).counts
        must(counts.pending == counts.leased == 0, f"batch {name} is {record.state} with {counts}")
        must(record.state in ("finished", "cancelled"), f"batch {name} is {record.state}")
        for number in journal.of_batch[name]:
            _check_verdict(world, number)


def _check_verdict(world: World, number: int) -> None:
    row = world.journal.rows[number]
    kind = row.item.stem.split("-")[0]
    shunned = row.state == "quarantined" and row.kind is None
    if row.state == "cancelled" or shunned:
        return
    if kind in DEADLY:
        must(row.state == "quarantined", f"{row.item.stem} kills its workers and is {row.state}")
    elif kind in ("corrupt", "giant", "outside") and row.state != "quarantined":
        must(row.state == "failed", f"{row.item.stem} cannot be done and is {row.state}")
    elif kind in HARMLESS and world.deaths.get(number, 0) < 2 and world.unclean.get(number, 0) < 3:
        done = ("done", "cached") if world.cache is not None else ("done",)
        must(row.state in done, f"{row.item.stem} is harmless and is {row.state}")
