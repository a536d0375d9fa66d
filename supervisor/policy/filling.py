"""Batches that still take images: what of them has reached the disk, and what ends their filling.

A batch is filled by one client, chunk by chunk, and closed by it. A client that was killed, or lost its machine, closes
nothing: its batch would take images for ever. So each open batch has a clock that begins anew with every word of who
fills it (opened, a chunk asked for or committed, closed); when it has run for `abandon_seconds` the batch is closed as
it is. It is `abandoned` then, in the journal too: what was accepted is worked on, a chunk that comes late is refused
with the way out, and opening the batch again (the same submission again) takes that back, whether it is finished or
not. A batch that is found open at a start gets the whole time once more.

While the journal cannot be written, or the pool drains, nobody can fill anything: then no clock runs.
"""

from protocol import messages as m
from protocol.errors import Refused
from supervisor.policy.commands import ChangeBatch, Command, Note, Reply, SealBatch
from supervisor.policy.counted import counted
from supervisor.policy.events import BatchCreated, BatchSealed, ItemsInserted, JournalRefused
from supervisor.policy.queue import Batch
from supervisor.policy.reports import end_if_complete
from supervisor.policy.state import PoolState

NOBODY = b""
"""The peer of what the pool itself asks of the journal."""


def hear(state: PoolState, name: str, now: float) -> None:
    """Notes a word of who fills a batch."""
    batch = state.queue.batches.get(name)
    if batch is not None and batch.open:
        batch.heard_at = now
        due = now + state.settings.abandon_seconds
        state.queue.abandon_at = due if state.queue.abandon_at is None else min(state.queue.abandon_at, due)


def hear_all(state: PoolState, now: float) -> None:
    """Begins the clocks of all open batches anew: at a start, and when the journal takes again."""
    for name in state.queue.batches:
        hear(state, name, now)


def attend(state: PoolState, now: float) -> list[Command]:
    """Closes the open batches whose clients have been silent for too long."""
    if state.queue.abandon_at is None or now < state.queue.abandon_at or not _heeded(state):
        return []
    state.queue.abandon_at = None
    commands: list[Command] = []
    for batch in state.queue.batches.values():
        if not batch.open or batch.sealing:
            continue
        if batch.heard_at is None:
            batch.heard_at = now
        due = batch.heard_at + state.settings.abandon_seconds
        if now >= due:
            commands += _abandon(state, batch, now - batch.heard_at, now)
        else:
            state.queue.abandon_at = due if state.queue.abandon_at is None else min(state.queue.abandon_at, due)
    return commands


def next_deadline(state: PoolState) -> float | None:
    """Returns when `attend` has something to do at the earliest, None where it has not."""
    return state.queue.abandon_at if _heeded(state) else None


def _heeded(state: PoolState) -> bool:
    return state.journal_stalled is None and not state.draining


def _abandon(state: PoolState, batch: Batch, silent_seconds: float, now: float) -> list[Command]:
    batch.sealing = True
    limit = state.settings.abandon_seconds
    message = (
        f"batch {batch.name} is closed with the {counted(batch.items, 'image')} it has: its client has not closed it, "
        f"nor said a word for {silent_seconds:.0f} s (abandon_after is {limit:g} s); submitting the same again with "
        f"--batch {batch.name} goes on where it stopped"
    )
    figures: dict[str, object] = {
        "items": batch.items, "settled": batch.settled, "silent_seconds": round(silent_seconds, 3),
        "limit_seconds": limit,
    }  # fmt: skip
    seal = SealBatch(
        peer=NOBODY, request_id=batch.name, batch=batch.name, ignored=batch.ignored, abandoned_at=state.epoch(now)
    )
    return [Note(kind="abandoned", batch=batch.name, message=message, figures=figures), seal]


# ---- what the journal says -----------------------------------------------------------------------


def on_created(state: PoolState, event: BatchCreated, now: float) -> list[Command]:
    """The batch is on disk: serve it, and say so."""
    record = event.record
    state.creating.discard((event.peer, event.request_id))
    commands: list[Command] = []
    if record.finished_at is None:
        batch = state.queue.add(record)
        if event.resumed:
            batch.open, batch.abandoned_at = True, None
            commands += revive(state, batch)
        hear(state, record.batch, now)
    opened = m.BatchOpened(id=event.request_id, batch=record.batch, resumed=event.resumed, next_chunk=record.next_chunk)
    return [*commands, Reply(peer=event.peer, answer=opened)]


def on_inserted(state: PoolState, event: ItemsInserted, now: float) -> list[Command]:
    """The chunk is on disk: its items may be fetched, and it is acknowledged."""
    state.inserts -= 1
    hear(state, event.batch, now)
    batch = state.queue.batches.get(event.batch)
    if batch is not None:
        while len(batch.roots) <= event.root:
            batch.roots.append(("/", ""))
        batch.roots[event.root] = (event.root_path, event.prefix)
        batch.items += event.added
        batch.exhausted = batch.exhausted and not event.added
    answer = m.ItemsAdded(
        id=event.request_id, batch=event.batch, chunk=event.chunk, added=event.added, known=event.known
    )
    return [Reply(peer=event.peer, answer=answer)]


def on_refused(state: PoolState, event: JournalRefused, now: float) -> list[Command]:
    """The journal could not take it: told with the journal's own sentence."""
    if event.peer == NOBODY:
        if (batch := state.queue.batches.get(str(event.request_id))) is not None:
            batch.sealing = False
            hear(state, batch.name, now)
        return []
    state.creating.discard((event.peer, event.request_id))
    if event.was_insert:
        state.inserts -= 1
    code, asked = 2 if event.fault == "caller" else Refused.exit_code, event.request_id
    answer = m.Problem(id=asked, code=event.code, fault=event.fault, message=event.message, exit_code=code)
    return [Reply(peer=event.peer, answer=answer)]


def on_sealed(state: PoolState, event: BatchSealed, now: float) -> list[Command]:
    """The batch takes no more; an empty one is finished at once."""
    answer = m.BatchClosed(id=event.request_id, batch=event.batch, items=event.items, ignored=event.ignored)
    commands: list[Command] = [] if event.peer == NOBODY else [Reply(peer=event.peer, answer=answer)]
    batch = state.queue.batches.get(event.batch)
    if batch is not None:
        batch.open = batch.sealing = False
        batch.items = event.items
        batch.ignored = event.ignored
        batch.abandoned_at = event.abandoned_at
        commands += end_if_complete(state, batch, now)
    return commands


# ---- states that are kept ------------------------------------------------------------------------


def revive(state: PoolState, batch: Batch) -> list[Command]:
    """Takes the end of a batch back that is on its way to the journal, because it got work again meanwhile."""
    if not batch.closing:
        return []
    batch.closing = False
    return [change_batch(state, batch, "running")]


def change_batch(state: PoolState, batch: Batch, to: m.BatchState) -> ChangeBatch:
    """Keeps a state of a batch that goes on."""
    state.changes += 1
    batch.changing += 1
    return ChangeBatch(batch=batch.name, state=to, paused=batch.paused)
