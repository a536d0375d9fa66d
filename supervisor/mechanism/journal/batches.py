"""The commands that open, fill, seal and change a batch."""

import sqlite3
from typing import NamedTuple

import orjson

from protocol.errors import Abandoned, Fault, OutputClash, UnknownBatch
from protocol.paths import from_token, is_plain, item_path, join
from supervisor.mechanism.journal.records import (
    as_text,
    count,
    insert_batch,
    read_batch,
    read_batches,
    read_roots,
    single,
    struct_text,
)
from supervisor.policy.commands import ChangeBatch, CreateBatch, InsertItems, SealBatch
from supervisor.policy.events import BatchChanged, BatchCreated, BatchSealed, ItemsInserted, JournalRefused
from supervisor.policy.items import BatchRecord

UNFINISHED = "state NOT IN ('finished', 'cancelled')"
_TO_RESUME = f"({UNFINISHED} OR (state = 'finished' AND abandoned_at IS NOT NULL))"

# One statement, not three: beside a busy thread each may cost a switch interval.
_OPEN = """SELECT b.number, b.next_chunk, b.open, b.state,
    (SELECT r.number FROM roots r WHERE r.root = ?1 AND r.batch = b.number AND r.prefix = ?2),
    (SELECT coalesce(max(r.number) + 1, 0) FROM roots r WHERE r.batch = b.number),
    (SELECT coalesce(max(id), 0) FROM items), b.abandoned_at, b.items
    FROM batches b WHERE b.batch = ?3"""

_INSERT = "INSERT OR IGNORE INTO items(batch, root, stem) SELECT ?1, ?2, value FROM json_each(?3)"


class _Open(NamedTuple):
    """A batch as an insert finds it; `root` is the number of the chunk's root, `new_root` where that is new;
    `last_id` the highest of all items."""

    number: int
    next_chunk: int
    open: int
    state: str
    root: int | None
    new_root: int
    last_id: int
    abandoned_at: float | None
    items: int


def create(connection: sqlite3.Connection, command: CreateBatch) -> BatchCreated:
    """A batch of that name is returned as it is, but reopened where it was abandoned; with `resume` an unfinished or
    abandoned one of the same fingerprint is reopened; else the batch is new."""
    same_name = read_batch(connection, command.record.batch)
    if same_name is not None:
        number, record = same_name
        if record.abandoned_at is not None and record.state != "cancelled":
            return _created(command, _reopen(connection, number, record.batch), resumed=True)
        sealed_half = not record.open and record.state not in ("finished", "cancelled")
        if command.resume and sealed_half and record.fingerprint == command.record.fingerprint is not None:
            return _created(command, _reopen(connection, number, record.batch), resumed=True)
        return _created(command, record, resumed=False)
    if command.resume and command.record.fingerprint is not None:
        earlier = connection.execute(
            f"SELECT number, batch FROM batches WHERE fingerprint = ? AND {_TO_RESUME} ORDER BY number DESC LIMIT 1",
            (command.record.fingerprint,),
        ).fetchone()
        if earlier is not None:
            return _created(command, _reopen(connection, *earlier), resumed=True)
    insert_batch(connection, command.record)
    return _created(command, known(connection, command.record.batch), resumed=False)


def _reopen(connection: sqlite3.Connection, number: int, batch: str) -> BatchRecord:
    over = single(connection, "SELECT finished_at FROM batches WHERE number = ?", (number,)) is not None
    connection.execute("UPDATE batches SET open = 1, abandoned_at = NULL WHERE number = ?", (number,))
    if over:
        revive(connection, number)
    return known(connection, batch)


def known(connection: sqlite3.Connection, batch: str) -> BatchRecord:
    """Returns the record of a batch that is there."""
    found = read_batch(connection, batch)
    assert found is not None
    return found[1]


def _created(command: CreateBatch, record: BatchRecord, *, resumed: bool) -> BatchCreated:
    return BatchCreated(peer=command.peer, request_id=command.request_id, record=record, resumed=resumed)


def insert(connection: sqlite3.Connection, command: InsertItems) -> ItemsInserted | JournalRefused:
    """Adds a chunk whole or not at all; a repeated chunk and repeated names are harmless."""
    row = connection.execute(_OPEN, (command.root, command.prefix, command.batch)).fetchone()
    if row is None:
        return _refused(command, "unknown_batch", str(UnknownBatch(command.batch)))
    batch = _Open(*row)
    if command.chunk < batch.next_chunk:
        # Its root is known since the first time, unless the sender put other names under an old number.
        root = batch.root if batch.root is not None else _add_root(connection, batch, command)
        return _inserted(command, root, added=0)
    if batch.abandoned_at is not None and batch.state != "cancelled":
        late = Abandoned(command.batch, batch.items)
        return _refused(command, late.code, str(late), late.fault)
    if batch.state in ("finished", "cancelled") or not batch.open:
        how = batch.state if batch.state in ("finished", "cancelled") else "closed"
        return _refused(command, "closed", f"batch {command.batch!r} is {how} and takes no more items; open a new one")
    if command.chunk > batch.next_chunk:
        message = (
            f"chunk {command.chunk} of batch {command.batch!r} came where {batch.next_chunk} is next; "
            f"send chunk {batch.next_chunk} first"
        )
        return _refused(command, "bad_chunk", message)
    return _insert_chunk(connection, batch, command)


def insert_run(connection: sqlite3.Connection, run: list[InsertItems]) -> list[ItemsInserted | JournalRefused]:
    """Adds chunks of one batch and one root that follow one another. New names in the order of their chunks, which
    is what a first submission sends, are added by one statement; anything else chunk by chunk."""
    first = run[0]
    row = connection.execute(_OPEN, (first.root, first.prefix, first.batch)).fetchone() if len(run) > 1 else None
    batch = _Open(*row) if row is not None else None
    in_order = batch is not None and [command.chunk - batch.next_chunk for command in run] == list(range(len(run)))
    if batch is None or not in_order or not batch.open or batch.state in ("finished", "cancelled"):
        return [insert(connection, command) for command in run]
    stems = stems_of(first.prefix, [name for command in run for name in command.names])
    root = batch.root if batch.root is not None else batch.new_root
    added = connection.execute(_INSERT, (batch.number, root, orjson.dumps(stems).decode())).rowcount
    if added < len(stems):
        connection.execute("DELETE FROM items WHERE id > ?", (batch.last_id,))
        return [insert(connection, command) for command in run]
    if batch.root is None:
        _add_root(connection, batch, first)
    _advance(connection, batch.number, added, run[-1].chunk)
    return [_inserted(command, root, added=len(command.names)) for command in run]


def _insert_chunk(connection: sqlite3.Connection, batch: _Open, command: InsertItems) -> ItemsInserted | JournalRefused:
    root = batch.root if batch.root is not None else batch.new_root
    stems = orjson.dumps(stems_of(command.prefix, command.names)).decode()
    added = connection.execute(_INSERT, (batch.number, root, stems)).rowcount
    if added < len(command.names):
        clash = _clash(connection, batch.number, root, command, stems)
        if clash is not None:
            # Ids only grow, so what this chunk added are those above the last one before it.
            connection.execute("DELETE FROM items WHERE id > ?", (batch.last_id,))
            return _refused(command, clash.code, str(clash))
    if batch.root is None:
        _add_root(connection, batch, command)
    _advance(connection, batch.number, added, command.chunk)
    return _inserted(command, root, added=added)


def _advance(connection: sqlite3.Connection, number: int, added: int, chunk: int) -> None:
    connection.execute(
        "UPDATE batches SET items = items + ?, next_chunk = ? WHERE number = ?", (added, chunk + 1, number)
    )


def stems_of(prefix: str, names: list[str]) -> list[str]:
    """Returns what the outputs are named after: prefix/name, as tokens."""
    if not prefix:
        return names
    if is_plain(prefix) and not any(name.startswith("//") for name in names):
        front = prefix if prefix.endswith("/") else f"{prefix}/"
        return [front + name for name in names]
    return [join(prefix, name) for name in names]


def _add_root(connection: sqlite3.Connection, batch: _Open, command: InsertItems) -> int:
    connection.execute(
        "INSERT INTO roots(batch, number, root, prefix) VALUES (?, ?, ?, ?)",
        (batch.number, batch.new_root, command.root, command.prefix),
    )
    return batch.new_root


def _clash(
    connection: sqlite3.Connection, number: int, root: int, command: InsertItems, stems: str
) -> OutputClash | None:
    """Only another root can give the same stem to another file."""
    text = single(
        connection,
        "SELECT json_group_array(json_array(i.root, i.stem)) FROM json_each(?) j JOIN items i "
        "ON i.batch = ? AND i.stem = j.value WHERE i.root <> ?",
        (stems, number, root),
    )
    pairs: list[tuple[int, str]] = orjson.loads(text)
    if not pairs:
        return None
    roots = read_roots(connection, number)
    for other, stem in pairs:
        first, second = item_path(*roots[other], stem), item_path(command.root, command.prefix, stem)
        if first != second:
            return OutputClash(_shown(first), _shown(second), _shown(stem))
    return None


def _shown(token: str) -> str:
    return from_token(token).decode("utf-8", "replace")


def _inserted(command: InsertItems, root: int, *, added: int) -> ItemsInserted:
    return ItemsInserted(
        peer=command.peer,
        request_id=command.request_id,
        batch=command.batch,
        chunk=command.chunk,
        added=added,
        known=len(command.names) - added,
        root=root,
        root_path=command.root,
        prefix=command.prefix,
    )


def _refused(command: InsertItems | SealBatch, code: str, message: str, fault: Fault = "caller") -> JournalRefused:
    return JournalRefused(
        peer=command.peer,
        request_id=command.request_id,
        code=code,
        message=message,
        was_insert=isinstance(command, InsertItems),
        fault=fault,
    )


def seal(connection: sqlite3.Connection, command: SealBatch) -> BatchSealed | JournalRefused:
    """No more items come. A client that closes an abandoned batch was only slow: it is complete after all."""
    items = single(connection, "SELECT items FROM batches WHERE batch = ?", (command.batch,))
    if items is None:
        return _refused(command, "unknown_batch", str(UnknownBatch(command.batch)))
    connection.execute(
        "UPDATE batches SET open = 0, ignored = ?1, abandoned_at = ?2 WHERE batch = ?3 AND (open OR ?2 IS NULL)",
        (command.ignored, command.abandoned_at, command.batch),
    )
    return BatchSealed(
        peer=command.peer,
        request_id=command.request_id,
        batch=command.batch,
        items=items,
        ignored=command.ignored,
        abandoned_at=single(connection, "SELECT abandoned_at FROM batches WHERE batch = ?", (command.batch,)),
    )


def change(connection: sqlite3.Connection, command: ChangeBatch) -> BatchChanged:
    """Keeps the state; a batch with an end gets its counts frozen into the row, any other loses them."""
    number = single(connection, "SELECT number FROM batches WHERE batch = ?", (command.batch,))
    if number is not None:
        frozen = struct_text(count(connection, number)) if command.finished_at is not None else None
        summary = struct_text(command.summary) if command.summary is not None else None
        connection.execute(
            "UPDATE batches SET state = ?, paused = ?, finished_at = ?, counts = ?, summary = coalesce(?, summary) "
            "WHERE number = ?",
            (command.state, command.paused, command.finished_at, frozen, summary, number),
        )
    return BatchChanged(batch=command.batch)


def revive(connection: sqlite3.Connection, number: int) -> None:
    """A batch that got items back runs again."""
    connection.execute(
        "UPDATE batches SET state = 'running', paused = NULL, finished_at = NULL, counts = NULL WHERE number = ?",
        (number,),
    )


def unfinished(connection: sqlite3.Connection) -> list[BatchRecord]:
    """Returns the batches that a restart goes on with, oldest first."""
    where = f"{UNFINISHED} OR finished_at IS NULL ORDER BY number"
    return [record for _, record in read_batches(connection, where, ())]


def others_with_same_out(connection: sqlite3.Connection, number: int) -> str | None:
    """Returns the JSON list of the other batches that write below the same directory, None when there are none."""
    rows = connection.execute(
        "SELECT o.number FROM batches b JOIN batches o ON o.out = b.out AND o.number <> b.number WHERE b.number = ?",
        (number,),
    ).fetchall()
    return as_text([row[0] for row in rows]) if rows else None
