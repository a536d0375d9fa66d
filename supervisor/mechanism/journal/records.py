"""Rows <-> the policy's data types, and the few look-ups that every part needs."""

import sqlite3
from typing import Any

import msgspec
import orjson

from protocol.messages import Counts, Recipe, Summary
from supervisor.policy.commands import LiveBatch
from supervisor.policy.items import BatchRecord

STATE_NAMES = ("pending", "done", "cached", "failed", "quarantined", "cancelled")
"""An item's state is kept as its number here. Leased is no state of a row: a lease dies with the supervisor."""
STATE_NUMBERS = {name: number for number, name in enumerate(STATE_NAMES)}
OVER = ("finished", "cancelled")
"""States of a batch whose row is the last word."""

_COLUMNS = (
    "number, batch, recipe, out, overwrite, strict, priority, hold, fingerprint, kind, opened_at, open, state, "
    "paused, finished_at, items, ignored, next_chunk, counts, summary, abandoned_at"
)

_recipe = msgspec.json.Decoder(Recipe)
_counts = msgspec.json.Decoder(Counts)
_summary = msgspec.json.Decoder(Summary)
_roots = msgspec.json.Decoder(list[tuple[str, str]])


def as_text(value: Any) -> str:
    """Returns the JSON text of a value, as SQLite takes it."""
    return orjson.dumps(value).decode()


def struct_text(value: msgspec.Struct) -> str:
    """Returns the JSON text of a struct."""
    return msgspec.json.encode(value).decode()


def single(connection: sqlite3.Connection, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
    """Returns the first column of the first row, None where there is no row."""
    row = connection.execute(sql, parameters).fetchone()
    return None if row is None else row[0]


def insert_batch(connection: sqlite3.Connection, record: BatchRecord) -> None:
    """Adds the row of a new batch."""
    connection.execute(
        "INSERT INTO batches(batch, recipe, out, overwrite, strict, priority, hold, fingerprint, kind, opened_at, open,"
        " state, paused, finished_at, ignored, summary) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            record.batch,
            struct_text(record.recipe),
            record.out,
            record.overwrite,
            record.strict,
            record.priority,
            record.hold,
            record.fingerprint,
            record.kind,
            record.opened_at,
            record.open,
            record.state,
            record.paused,
            record.finished_at,
            record.ignored,
            struct_text(record.summary),
        ),
    )


def read_batch(connection: sqlite3.Connection, batch: str) -> tuple[int, BatchRecord] | None:
    """Returns the number and the record of a batch, counted as it stands; None when it is not known."""
    found = read_batches(connection, "batch = ?", (batch,))
    return found[0] if found else None


def read_batches(
    connection: sqlite3.Connection,
    where: str,
    parameters: tuple[Any, ...],
    live: dict[str, LiveBatch] | None = None,
    with_roots: bool = True,
) -> list[tuple[int, BatchRecord]]:
    """Returns (number, record) of the batches that match. Counts come from `live`, from the row where they were
    frozen when the batch finished, else they are counted; the state from `live` until the row says that it is over."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM batches WHERE {where}", parameters).fetchall()
    return [_record(connection, row, live or {}, with_roots) for row in rows]


def _record(
    connection: sqlite3.Connection, row: tuple[Any, ...], live: dict[str, LiveBatch], with_roots: bool
) -> tuple[int, BatchRecord]:
    (number, batch, recipe, out, overwrite, strict, priority, hold, fingerprint, kind, opened_at, is_open, state,
     paused, finished_at, items, ignored, next_chunk, counts, summary, abandoned_at) = row  # fmt: skip
    if batch in live:
        counted = live[batch].counts
        state = state if state in OVER else live[batch].state
    else:
        counted = _counts.decode(counts) if counts is not None else count(connection, number)
    return number, BatchRecord(
        batch=batch,
        recipe=_recipe.decode(recipe),
        out=out,
        overwrite=bool(overwrite),
        strict=bool(strict),
        priority=priority,
        hold=bool(hold),
        fingerprint=fingerprint,
        kind=kind,
        opened_at=opened_at,
        open=bool(is_open),
        abandoned_at=abandoned_at,
        state=state,
        paused=paused,
        finished_at=finished_at,
        items=items,
        ignored=ignored,
        next_chunk=next_chunk,
        counts=counted,
        summary=_summary.decode(summary),
        roots=read_roots(connection, number) if with_roots else [],
    )


def read_roots(connection: sqlite3.Connection, number: int) -> list[tuple[str, str]]:
    """Returns (root, prefix) of a batch, by number."""
    text = single(
        connection,
        "SELECT json_group_array(json_array(root, prefix)) FROM "
        "(SELECT root, prefix FROM roots WHERE batch = ? ORDER BY number)",
        (number,),
    )
    return _roots.decode(text)


def count(connection: sqlite3.Connection, number: int) -> Counts:
    """Returns the counts of a batch by reading indexes alone (1,000,000 items: some 0.1 s)."""
    counts = {"pending": single(connection, "SELECT count(*) FROM items WHERE batch = ? AND state = 0", (number,))}
    for state, settled in connection.execute(
        "SELECT state, count(*) FROM items WHERE batch = ? AND settled IS NOT NULL GROUP BY state", (number,)
    ).fetchall():
        counts[STATE_NAMES[state]] = settled
    return Counts(**counts)
