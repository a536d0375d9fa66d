"""The index's statements. One connection, used by one thread at a time; everything here is one idea in SQL.

Writes gather in a transaction that `commit` ends. Totals (entries, bytes, culled) are kept in memory and written
with each commit, so that no question counts a million rows. Hits are not written as they come: they gather in
memory and are added in groups.

A group of items is looked up by one statement over `json_each` that returns one JSON text: the `sqlite3` module
gives the GIL away and takes it back for every row, and beside a busy thread that can cost 5 ms each time.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec

from protocol import faults
from supervisor.mechanism.cache import schema
from supervisor.policy.cache.asked import FileStamp
from supervisor.policy.cache.entry import Entry, Key
from supervisor.policy.cache.keys import CONTENT_BYTES, CacheStep
from supervisor.policy.cache.stats import Tally

STEP_DIGITS = 16
"""Hexadecimal digits of a step's key in the name of a blob."""
STEPS_MAX = 60_000
"""Steps ever seen: a step is an operation with its parameters, of which people have dozens."""
TOUCHED_MAX = 8192
_SAMPLE_POINTS = 4
_INT_MASK = (1 << 63) - 1
_TALLY_COLUMNS = ("hits", "first_sights", "missed_again", "stored", "culled")

_LOOK_UP = """
SELECT json_group_array(json_array(j.key, s.size, s.mtime_ns, s.ctime_ns, s.seen, hex(s.content), e.step, e.bytes,
    e.cost_us, e.made, e.inline, hex(e.record), hex(p.stats), p.seen))
FROM json_each(?) AS j
LEFT JOIN shortcuts AS s ON s.device = j.value ->> 0 AND s.inode = j.value ->> 1
LEFT JOIN entries AS e ON e.content = s.content AND e.step IN (%s)
LEFT JOIN placed AS p ON p.key = j.value ->> 2"""
_GET = """
SELECT record, value, bytes, cost_us, made, inline FROM entries LEFT JOIN inlines ON inlines.number = entries.inline
WHERE content = ? AND step = ?"""
_ENTRY_COLUMNS = "content, step, bytes, cost_us, made, seen, hits, inline"


class Row(msgspec.Struct, frozen=True):
    """An entry as the index holds it; `value` None: its outputs are blobs."""

    record: bytes
    value: bytes | None
    size_bytes: int
    cost_us: int
    made: int


class FoundStep(msgspec.Struct, frozen=True, array_like=True):
    """A row of `Index.look_up`; hashes and records in hexadecimal, None where there is no such row."""

    number: int
    size: int | None
    mtime_ns: int | None
    ctime_ns: int | None
    shortcut_seen: int | None
    content: str
    step: int | None
    bytes: int | None
    cost_us: int | None
    made: int | None
    inline: int | None
    record: str
    placed: str
    placed_seen: int | None


_found = msgspec.json.Decoder(list[FoundStep])


def entry_key(content: bytes, step: int) -> Key:
    """Returns the policy's key of an entry."""
    return content + step.to_bytes(2, "big")


def split_key(key: Key) -> tuple[bytes, int]:
    """Returns (content, step number) of a policy's key."""
    return key[:CONTENT_BYTES], int.from_bytes(key[CONTENT_BYTES:], "big")


class Index:
    """`cache.db` by its statements. Every method raises sqlite3.Error where the file or the disk refuses."""

    def __init__(self, connection: sqlite3.Connection, random: Random) -> None:
        self._connection = connection
        self._random = random
        self.steps: dict[int, CacheStep] = {}
        self._step_numbers: dict[bytes, int] = {}
        self._steps_by_digits: dict[str, list[int]] = {}
        self._touched: dict[Key, list[int]] = {}
        self.tallies: dict[tuple[int, str], Tally] = {}
        self._tallies_changed: set[tuple[int, str]] = set()
        for number, key, operation, version in connection.execute("SELECT number, key, operation, version FROM steps"):
            self._remember_step(number, CacheStep(operation, version, key))
        for step, policy, *counts in connection.execute("SELECT * FROM tallies"):
            self.tallies[step, policy] = Tally(**dict(zip(_TALLY_COLUMNS, counts, strict=True)))
        self.entries, self.bytes = self._totals()

    # ---- transactions

    @property
    def in_transaction(self) -> bool:
        """Whether something waits for `commit`."""
        return self._connection.in_transaction

    def begin(self) -> None:
        """Begins a transaction unless one is open."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Writes totals and tallies, and ends the transaction. On an error everything since `begin` is undone."""
        if not self._connection.in_transaction:
            return
        try:
            self.keep("totals", f"{self.entries} {self.bytes}")
            self._write_tallies()
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self.roll_back()
            raise
        self._tallies_changed.clear()
        faults.at("index.committed")

    def roll_back(self) -> None:
        """Undoes what was not committed."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self.entries, self.bytes = self._totals()

    def close(self) -> None:
        """Empties the log and closes the file. Raises sqlite3.Error."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._connection.close()

    # ---- steps and small facts

    def step_number(self, step: CacheStep) -> int | None:
        """Returns the number of a step, made if it is new; None when there are too many."""
        number = self._step_numbers.get(step.key)
        if number is None:
            if len(self.steps) >= STEPS_MAX:
                return None
            self.begin()
            number = max(self.steps, default=0) + 1
            sql = "INSERT INTO steps(number, key, operation, version) VALUES (?, ?, ?, ?)"
            self._connection.execute(sql, (number, step.key, step.operation, step.version))
            self._remember_step(number, step)
        return number

    def known_step(self, key: bytes) -> int | None:
        """Returns the number of a step, None where it was never seen."""
        return self._step_numbers.get(key)

    def steps_named(self, digits: str) -> list[int]:
        """Returns the numbers of the steps whose key begins so, in hexadecimal."""
        return self._steps_by_digits.get(digits, [])

    def forget_fact(self, key: str) -> None:
        """Drops a small fact."""
        self.begin()
        self._connection.execute("DELETE FROM meta WHERE key = ?", (key,))

    def fact(self, key: str) -> Any:
        """Returns a small fact kept under a name, None where there is none."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def keep(self, key: str, value: str | bytes | int) -> None:
        """Keeps a small fact."""
        self.begin()
        self._connection.execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)", (key, value))

    # ---- entries

    def get(self, content: bytes, step: int) -> Row | None:
        """Returns an entry."""
        row = self._connection.execute(_GET, (content, step)).fetchone()
        if row is None:
            return None
        record, value, size_bytes, cost_us, made, inline = row
        # An inline entry without its value is damaged, and must not be taken for one with blobs.
        return Row(record, b"" if inline and value is None else value, size_bytes, cost_us, made)

    def insert(self, content: bytes, step: int, row: Row, now: int) -> None:
        """Adds an entry; there must be none of that key."""
        self.begin()
        inline = 0
        if row.value is not None:
            inline = self._connection.execute("INSERT INTO inlines(value) VALUES (?)", (row.value,)).lastrowid or 0
        self._connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
            (content, step, row.size_bytes, row.cost_us, row.made, now, inline, row.record),
        )
        self.entries += 1
        self.bytes += row.size_bytes
        faults.at("index.inserted")

    def delete(self, content: bytes, step: int) -> tuple[bytes, bool] | None:
        """Removes an entry; returns its record and whether its outputs are blobs, None where there was none."""
        self.begin()
        row = self._connection.execute(
            "DELETE FROM entries WHERE content = ? AND step = ? RETURNING bytes, record, inline", (content, step)
        ).fetchone()
        self._touched.pop(entry_key(content, step), None)
        if row is None:
            return None
        self.entries -= 1
        self.bytes -= row[0]
        if row[2]:
            self._connection.execute("DELETE FROM inlines WHERE number = ?", (row[2],))
        return row[1], not row[2]

    def touch(self, key: Key, now: int) -> bool:
        """Counts a hit, in memory; returns True when it is time to write them."""
        touched = self._touched.get(key)
        if touched is None:
            self._touched[key] = [1, now]
        else:
            touched[0] += 1
            touched[1] = now
        return len(self._touched) >= TOUCHED_MAX

    def write_touched(self) -> None:
        """Writes the hits counted since the last time."""
        if not self._touched:
            return
        self.begin()
        rows = [(count, seen, *split_key(key)) for key, (count, seen) in self._touched.items()]
        sql = "UPDATE entries SET hits = min(hits + ?, 1000000), seen = ? WHERE content = ? AND step = ?"
        self._connection.executemany(sql, rows)
        self._touched.clear()

    def sample(self, count: int) -> list[Entry]:
        """Returns about `count` entries from a few random places; all there are when they are few."""
        found: dict[Key, Entry] = {}
        each = -(-count // _SAMPLE_POINTS)
        sql = f"SELECT {_ENTRY_COLUMNS} FROM entries WHERE content >= ? LIMIT ?"
        for _ in range(_SAMPLE_POINTS):
            start = self._random.randbytes(CONTENT_BYTES)
            rows = self._connection.execute(sql, (start, each)).fetchall()
            if len(rows) < each:
                rows += self._connection.execute(sql, (b"", each - len(rows))).fetchall()
            for row in rows:
                entry = self._entry(row)
                found[entry.key] = entry
        return list(found.values())

    def walk(self, after: Key, limit: int) -> list[Entry]:
        """Returns the next entries in the order of their keys."""
        content, step = split_key(after) if after else (b"", -1)
        sql = f"SELECT {_ENTRY_COLUMNS} FROM entries WHERE (content, step) > (?, ?) ORDER BY content, step LIMIT ?"
        return [self._entry(row) for row in self._connection.execute(sql, (content, step, limit)).fetchall()]

    # ---- shortcuts and places

    def look_up(self, stamps: Sequence[tuple[int, int, int]], steps: Sequence[int]) -> list[FoundStep]:
        """Finds, for each (device, inode, place), the shortcut, its content's entries, and what was placed there."""
        text = msgspec.json.encode([(device, inode & _INT_MASK, place) for device, inode, place in stamps]).decode()
        sql = _LOOK_UP % ", ".join(str(int(step)) for step in steps)
        return _found.decode(self._connection.execute(sql, (text,)).fetchone()[0])

    def entries_of(self, content: bytes, steps: Sequence[int]) -> dict[int, Row]:
        """Returns a content's entries of these steps, without their values (b"" stands for one not read)."""
        sql = (
            "SELECT step, record, iif(inline, x'', NULL), bytes, cost_us, made FROM entries "
            f"WHERE content = ? AND step IN ({', '.join(str(int(step)) for step in steps)})"
        )
        return {row[0]: Row(*row[1:]) for row in self._connection.execute(sql, (content,)).fetchall()}

    def add_shortcut(self, stamp: FileStamp, content: bytes, now: int) -> None:
        """Keeps which content a file has while its stat stays the same."""
        self.begin()
        inode = stamp.inode & _INT_MASK
        row = (stamp.device, inode, stamp.size_bytes, stamp.mtime_ns, stamp.ctime_ns, content, now)
        self._connection.execute("INSERT OR REPLACE INTO shortcuts VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def add_size(self, image_bytes: int) -> None:
        """Keeps that some known image has so many bytes."""
        self.begin()
        self._connection.execute("INSERT OR IGNORE INTO sizes VALUES (?)", (image_bytes,))

    def known_sizes(self, sizes: Iterable[int]) -> set[int]:
        """Returns which of these sizes some known image has: only such a file can be a copy of one."""
        text = msgspec.json.encode(sorted(set(sizes))).decode()
        sql = "SELECT json_group_array(j.value) FROM json_each(?) AS j JOIN sizes ON sizes.size = j.value"
        return set(msgspec.json.decode(self._connection.execute(sql, (text,)).fetchone()[0], type=list[int]))

    def add_placed(self, rows: Sequence[tuple[int, bytes, int]]) -> None:
        """Keeps (place, stats, now) of delivered outputs."""
        if rows:
            self.begin()
            self._connection.executemany("INSERT OR REPLACE INTO placed VALUES (?, ?, ?)", rows)

    def see_again(self, shortcuts: Sequence[tuple[int, int, int]], places: Sequence[tuple[int, int]]) -> None:
        """Renews (now, device, inode) and (now, place): what is looked for is not dropped for its age."""
        self.begin()
        masked = [(now, device, inode & _INT_MASK) for now, device, inode in shortcuts]
        self._connection.executemany("UPDATE shortcuts SET seen = ? WHERE device = ? AND inode = ?", masked)
        self._connection.executemany("UPDATE placed SET seen = ? WHERE key = ?", places)

    def drop_old(self, table: str, before: int, limit_rows: int) -> int:
        """Deletes shortcuts or places not looked for since; beyond `limit_rows`, the longest unseen go too. One
        statement, a scan of the table: for a rare moment of rest. Returns how many went."""
        assert table in ("shortcuts", "placed")
        self.begin()
        gone = self._connection.execute(f"DELETE FROM {table} WHERE seen < ?", (before,)).rowcount
        count = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        if count > limit_rows:
            sql = f"SELECT seen FROM {table} ORDER BY seen LIMIT 1 OFFSET ?"
            edge = self._connection.execute(sql, (count - limit_rows,)).fetchone()[0]
            gone += self._connection.execute(f"DELETE FROM {table} WHERE seen <= ?", (edge,)).rowcount
        return gone

    def drop_sizes(self, limit_rows: int) -> None:
        """Forgets all sizes when there are too many of them: copies are then recognised less often, never wrongly."""
        if self._connection.execute("SELECT count(*) FROM sizes").fetchone()[0] > limit_rows:
            self.begin()
            self._connection.execute("DELETE FROM sizes")
            self._connection.execute(
                "INSERT OR IGNORE INTO sizes SELECT size FROM shortcuts LIMIT ?", (limit_rows // 2,)
            )

    def shrink_file(self, pages: int) -> None:
        """Gives free pages back to the file system, so many at a time. Outside of a transaction."""
        self._connection.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()

    def check(self) -> str:
        """Returns `ok`, or the first thing that SQLite finds wrong."""
        return schema.check(self._connection)

    def clear(self) -> None:
        """Deletes everything but steps, tallies and facts."""
        self.begin()
        for table in ("entries", "inlines", "shortcuts", "placed", "sizes"):
            self._connection.execute(f"DELETE FROM {table}")
        self._touched.clear()
        self.entries = self.bytes = 0

    def recount(self) -> None:
        """Counts entries and bytes anew."""
        self.entries, self.bytes = self._connection.execute(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM entries"
        ).fetchone()

    def tally(self, step: int, policy: str) -> Tally:
        """Returns the counts of a step under a policy, to be changed; written with the next commit."""
        key = step, policy
        self._tallies_changed.add(key)
        found = self.tallies.get(key)
        if found is None:
            found = self.tallies[key] = Tally()
        return found

    def _write_tallies(self) -> None:
        rows = [(*key, *(getattr(self.tallies[key], name) for name in _TALLY_COLUMNS)) for key in self._tallies_changed]
        self._connection.executemany("INSERT OR REPLACE INTO tallies VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _remember_step(self, number: int, step: CacheStep) -> None:
        self.steps[number] = step
        self._step_numbers[step.key] = number
        self._steps_by_digits.setdefault(step.key.hex()[:STEP_DIGITS], []).append(number)

    def _totals(self) -> tuple[int, int]:
        kept = self.fact("totals")
        if kept is None:
            return 0, 0
        entries, size = str(kept).split()
        return int(entries), int(size)

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        content, step, size_bytes, cost_us, made, seen, hits, inline = row
        key = entry_key(content, step)
        touched = self._touched.get(key)
        if touched is not None:
            hits, seen = hits + touched[0], max(seen, touched[1])
        return Entry(key, size_bytes, cost_us / 1e6, made, seen, hits, bool(inline))
