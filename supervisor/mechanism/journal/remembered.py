"""What outlives a batch: images in quarantine, and decisions.

Quarantine is kept by path and recipe version: an image that kills one recipe may do under another, and both
facts are worth keeping. Decisions are the newest so many, dropped in steps.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import orjson

from protocol.paths import from_token, item_path, join, to_token
from supervisor.mechanism.journal.records import as_text, read_roots, single
from supervisor.policy.commands import Note
from supervisor.policy.items import QuarantineFacts

DECISIONS_STEP = 1_000
"""Old decisions are dropped so many at a time, so that a note costs no delete of its own."""

_ADD_NOTES = """INSERT INTO decisions(at, kind, message, slot, batch, path, figures)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
    json_extract(value, '$[6]') FROM json_each(?)"""

_shunned = msgspec.json.Decoder(list[tuple[str, int, int, str]])


class Place(NamedTuple):
    """One item row of an image."""

    number: int
    batch: str
    item: int
    state: int


def add_notes(connection: sqlite3.Connection, notes: Sequence[tuple[Note, float]], keep: int) -> None:
    """Keeps the newest `keep` decisions, each with the time it was taken at (seconds since the epoch)."""
    before = single(connection, "SELECT max(number) FROM decisions") or 0
    rows = [
        (at, note.kind, _text(note.message), note.slot, note.batch, note.path, _figures(note)) for note, at in notes
    ]
    connection.execute(_ADD_NOTES, (as_text(rows),))
    if (before + len(rows)) // DECISIONS_STEP != before // DECISIONS_STEP:
        connection.execute("DELETE FROM decisions WHERE number <= ?", (before + len(rows) - keep,))


def _text(message: str) -> str:
    """A message may carry a file name as the operating system gave it; no database holds its surrogates."""
    return message.encode("utf-8", "replace").decode()


def _figures(note: Note) -> str:
    try:
        return msgspec.json.encode(note.figures).decode()
    except (TypeError, UnicodeEncodeError, OverflowError):
        return as_text({"figures": _text(repr(note.figures))})


def quarantine(connection: sqlite3.Connection, item: int, facts: QuarantineFacts, at: float) -> None:
    """Remembers the image of an item; newer facts about the same recipe version replace older ones."""
    row = connection.execute(
        "SELECT r.root, r.prefix, i.stem FROM items i JOIN roots r ON r.batch = i.batch AND r.number = i.root "
        "WHERE i.id = ?",
        (item,),
    ).fetchone()
    if row is None:
        return
    connection.execute(
        "INSERT OR REPLACE INTO quarantine(path, version, size_bytes, mtime_ns, kind, message, recipe, at, evidence) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            item_path(*row),
            facts.version,
            facts.size_bytes,
            facts.mtime_ns,
            facts.kind,
            facts.message,
            facts.recipe,
            at,
            msgspec.json.encode(facts.evidence).decode(),
        ),
    )


def any_quarantined(connection: sqlite3.Connection) -> bool:
    """Tells whether any image is remembered at all."""
    return bool(single(connection, "SELECT EXISTS(SELECT 1 FROM quarantine)"))


def shunned(connection: sqlite3.Connection, number: int, paths: list[str]) -> dict[str, tuple[int, int, str]]:
    """Returns (size_bytes, mtime_ns, version) of those paths that are in quarantine. Where several versions are
    known, what was seen under the recipe of this batch is preferred, then the newest."""
    text = single(
        connection,
        "SELECT json_group_array(json_array(path, size_bytes, mtime_ns, version)) FROM (SELECT q.* FROM quarantine q "
        "WHERE q.path IN (SELECT value FROM json_each(?)) "
        "ORDER BY q.recipe = (SELECT json_extract(recipe, '$.name') FROM batches WHERE number = ?), q.at)",
        (as_text(paths), number),
    )
    return {path: (size, mtime, version) for path, size, mtime, version in _shunned.decode(text)}


def forget_of_batch(connection: sqlite3.Connection, number: int) -> None:
    """Drops what is remembered of the quarantined items of a batch."""
    pairs: list[tuple[int, str]] = orjson.loads(
        single(
            connection,
            "SELECT json_group_array(json_array(root, stem)) FROM items WHERE batch = ? AND state = 4",
            (number,),
        )
    )
    roots = read_roots(connection, number) if pairs else []
    paths = [item_path(*roots[root], stem) for root, stem in pairs]
    connection.execute("DELETE FROM quarantine WHERE path IN (SELECT value FROM json_each(?))", (as_text(paths),))


def places(connection: sqlite3.Connection, path: str) -> list[Place]:
    """Returns the items of an image in all batches, oldest first: each root that is a parent of the path gives
    one stem to look for."""
    names = _names_below(path)
    rows = connection.execute(
        "SELECT r.batch, b.batch, r.number, r.root, r.prefix FROM roots r JOIN batches b ON b.number = r.batch "
        "WHERE r.root IN (SELECT value FROM json_each(?)) ORDER BY r.batch",
        (as_text(list(names)),),
    ).fetchall()
    found = []
    for number, batch, root, root_path, prefix in rows:
        stem = join(prefix, names[root_path])
        item = connection.execute(
            "SELECT id, state FROM items WHERE batch = ? AND stem = ? AND root = ?", (number, stem, root)
        ).fetchone()
        if item is not None:
            found.append(Place(number, batch, *item))
    return found


def _names_below(path: str) -> dict[str, str]:
    """Returns what is left of the path below each of its parents, as tokens, parents with and without a slash."""
    raw = from_token(path)
    names: dict[str, str] = {}
    for at in range(len(raw)):
        if raw[at : at + 1] != b"/":
            continue
        name = to_token(raw[at + 1 :])
        names[to_token(raw[: at + 1])] = name
        names[to_token(raw[:at])] = name
    return names | {"": path}
