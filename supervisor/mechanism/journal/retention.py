"""Retention's sweep over the journal, one bounded step at a time, each in a transaction of its own.

A batch that is due leaves the table of batches at once, so that nobody sees it half gone; its items follow a slice a
step, in the order of the index they are found by. What its items wrote is kept as eight bytes each (`written`), so
that a later batch may replace it: a million names take 12 MB, and of more than `WRITTEN_MAX` some are forgotten. At
the end free pages are given back to the disk, a few a step, unless there are so few that the next batch will use them.

A look at a batch counts as use. Looks are kept in memory and written with the next step: reading costs no write.
"""

import hashlib
import sqlite3
from typing import NamedTuple

import orjson

from supervisor.mechanism.journal.records import as_text, single
from supervisor.policy.commands import SweepRetention
from supervisor.policy.events import BatchesDropped
from supervisor.policy.items import Item
from supervisor.policy.retention import Finished, Verdict, due

ROWS_A_STEP = 1_000
"""Some 10 ms with their index entries."""
BATCHES_A_STEP = 100
LARGE_BYTES = 1_024
"""A detail above it gives its values up: verdict, error and outputs of an image take less. Perceptual hashes, some 100
bytes, are kept: a gallery is compared long after it was worked through."""
FREE_PAGES_KEPT = 256
PAGES_A_STEP = 250
"""A megabyte: each page is moved and logged."""
WRITTEN_MAX = 4_000_000
"""48 MB. A name that is forgotten costs its owner an --overwrite, and only where other bytes stand under it."""
_WRITTEN_SHARE = 64
THINNED = -1
MAX_LOOKS = 10_000
DROPPED_VALUES = "values dropped by retention"

_LOOKED = """UPDATE batches SET used_at = max(used_at, j.value) FROM json_each(?) j WHERE batches.batch = j.key"""
_FINISHED = """SELECT json_group_array(json_array(number, kind, max(used_at, finished_at), thinned)) FROM batches
    WHERE state IN ('finished', 'cancelled') AND finished_at IS NOT NULL"""
_SLICE = """SELECT json_group_array(json_array(id, stem, state, tries)) FROM
    (SELECT id, stem, state, tries FROM items WHERE batch = ? ORDER BY stem LIMIT ?)"""
_FORGET_WRITTEN = """DELETE FROM written WHERE name IN
    (SELECT name FROM written WHERE name >= (SELECT random()) ORDER BY name LIMIT ?)"""
_THIN = """UPDATE items SET detail = json_set(CASE WHEN json_extract(detail, '$.values.phash') IS NULL
        THEN json_remove(detail, '$.values')
        ELSE json_set(detail, '$.values', json_object('phash', json_extract(detail, '$.values.phash'))) END,
        '$.warnings', json(json_insert(coalesce(json_extract(detail, '$.warnings'), '[]'), '$[#]', ?)))
    WHERE batch = ? AND settled > ? AND settled <= ? AND length(CAST(detail AS BLOB)) > ? AND json_valid(detail)
    AND json_extract(detail, '$.values') IS NOT NULL"""


class Step(NamedTuple):
    """What a step did; `more`: there is more to do now; `freed`: the file can be cut when the log is written back."""

    event: BatchesDropped | None = None
    more: bool = False
    freed: bool = False


def step(connection: sqlite3.Connection, command: SweepRetention, now: float, looks: dict[str, float]) -> Step:
    """Does the next bounded piece of the sweep; `now` and `looks` in seconds since the epoch."""
    if looks:
        connection.execute(_LOOKED, (as_text(looks),))
    half_gone = connection.execute("SELECT number, out FROM dropping ORDER BY number LIMIT 1").fetchone()
    if half_gone is not None:
        _drop_items(connection, *half_gone)
        return Step(more=True)
    rows = orjson.loads(single(connection, _FINISHED))
    finished = [
        Finished(number=number, kind=kind, used_at=used_at, thinned=thinned == THINNED)
        for number, kind, used_at, thinned in rows
    ]
    verdict = due(finished, command.retention, now)
    if verdict.drop:
        return Step(_drop_records(connection, verdict), more=True)
    if verdict.thin:
        return Step(_thin(connection, verdict.thin[0]), more=True)
    free = single(connection, "PRAGMA freelist_count")
    if free > FREE_PAGES_KEPT:
        for _ in range(min(PAGES_A_STEP, free - FREE_PAGES_KEPT)):
            # The module steps a statement without columns but once, which is one page.
            connection.execute("PRAGMA incremental_vacuum(1)")
        return Step(more=free - PAGES_A_STEP > FREE_PAGES_KEPT, freed=True)
    return Step()


def _drop_records(connection: sqlite3.Connection, verdict: Verdict) -> BatchesDropped:
    reasons = {each.number: each.reason for each in verdict.drop[:BATCHES_A_STEP]}
    numbers = as_text(list(reasons))
    mine = "number IN (SELECT value FROM json_each(?))"
    names = connection.execute(f"SELECT number, batch FROM batches WHERE {mine} ORDER BY number", (numbers,)).fetchall()
    connection.execute(f"INSERT INTO dropping(number, out) SELECT number, out FROM batches WHERE {mine}", (numbers,))
    connection.execute(f"DELETE FROM batches WHERE {mine}", (numbers,))
    return BatchesDropped(dropped=[(name, reasons[number]) for number, name in names])


def _drop_items(connection: sqlite3.Connection, number: int, out: str | None) -> None:
    rows = orjson.loads(single(connection, _SLICE, (number, ROWS_A_STEP)))
    if out is not None:
        # As in `items`: something may stand under the names of what settled but by a cancellation before its first try.
        written = [name_hash(out, stem) for _, stem, state, tries in rows if state in (1, 2, 3, 4) or tries > 0]
        connection.execute("INSERT OR IGNORE INTO written SELECT value FROM json_each(?)", (as_text(written),))
        _forget_written(connection, len(written))
    ids = as_text([row[0] for row in rows])
    connection.execute("DELETE FROM items WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    if len(rows) < ROWS_A_STEP:
        connection.execute("DELETE FROM roots WHERE batch = ?", (number,))
        connection.execute("DELETE FROM dropping WHERE number = ?", (number,))


def _thin(connection: sqlite3.Connection, number: int) -> BatchesDropped | None:
    cursor, name = connection.execute("SELECT thinned, batch FROM batches WHERE number = ?", (number,)).fetchone()
    rows, last = connection.execute(
        "SELECT count(*), max(settled) FROM (SELECT settled FROM items WHERE batch = ? AND settled > ? "
        "ORDER BY settled LIMIT ?)",
        (number, cursor, ROWS_A_STEP),
    ).fetchone()
    if rows:
        connection.execute(_THIN, (DROPPED_VALUES, number, cursor, last, LARGE_BYTES))
    over = rows < ROWS_A_STEP
    connection.execute("UPDATE batches SET thinned = ? WHERE number = ?", (THINNED if over else last, number))
    return BatchesDropped(thinned=[name]) if over else None


# ---- what dropped batches wrote ------------------------------------------------------------------


def name_hash(out: str, stem: str) -> int:
    """Returns 64 bits for an output's name, as SQLite's integers are (signed)."""
    digest = hashlib.blake2b(f"{out}\0{stem}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _forget_written(connection: sqlite3.Connection, count: int) -> None:
    """Where there are too many names, forgets as many, next to a random place. Hashes lie evenly: how many there are is
    told by a small range of them."""
    share = single(connection, "SELECT count(*) FROM written WHERE name BETWEEN 0 AND ?", (2**64 // _WRITTEN_SHARE,))
    if share * _WRITTEN_SHARE > WRITTEN_MAX:
        connection.execute(_FORGET_WRITTEN, (count,))


def own_what_was_written(connection: sqlite3.Connection, number: int, items: list[Item]) -> None:
    """Marks the items whose outputs a batch wrote that is forgotten: they may be replaced."""
    if not single(connection, "SELECT EXISTS(SELECT 1 FROM written)"):
        return
    out = single(connection, "SELECT out FROM batches WHERE number = ?", (number,))
    if out is None:
        return
    by_hash = {name_hash(out, item.stem): item for item in items if not item.owned}
    text = single(
        connection,
        "SELECT json_group_array(name) FROM written WHERE name IN (SELECT value FROM json_each(?))",
        (as_text(list(by_hash)),),
    )
    for name in orjson.loads(text):
        by_hash[name].owned = True
