"""Fixed-size rings of packed rows: what history is kept in, in memory and, byte for byte the same, in a file.

A row of history is a date, four figures of the whole, and two of each slot; packed it takes 37 bytes and 6 more a
worker. A tier is a ring of such rows, one a period; the rows that a tier closes are merged into the rows of the next,
coarser tier. So the newest past is kept by the second, the older one by the minute, and all of it in a size that is
known at the start.

A ring is written in place, one row at a time, and needs no head: the row with the latest date is the last one. So a
write that a crash tears spoils one row at most, and a file is read by whoever knows the layout.
"""

import math
import struct
from collections.abc import Iterator

import msgspec

MAX_SLOTS = 64
"""Workers beyond count in the total; a curve of their own they have not: a row shall stay below half a kilobyte."""
_NOBODY = 0xFFFF_FFFF
_KILOBYTE = 1024


class Row(msgspec.Struct, kw_only=True):
    """What is known of a stretch of time that ended at `at` (a date). Of used bytes the highest and lowest, of each
    slot the highest RSS (None: no worker) and the last batch size; the highest level; the last budget."""

    at: float
    used_bytes: int
    used_low_bytes: int
    budget_bytes: int
    level: int
    rss_bytes: list[int | None]
    batch_sizes: list[int]

    def absorb(self, later: "Row") -> None:
        """Becomes the row of both stretches."""
        self.at = later.at
        self.used_bytes = max(self.used_bytes, later.used_bytes)
        self.used_low_bytes = min(self.used_low_bytes, later.used_low_bytes)
        self.budget_bytes = later.budget_bytes
        self.level = max(self.level, later.level)
        pairs = zip(self.rss_bytes, later.rss_bytes, strict=True)
        self.rss_bytes = [mine if other is None else max(mine or 0, other) for mine, other in pairs]
        self.batch_sizes = later.batch_sizes


class Layout:
    """How a row of so many slots is packed: RSS in units of 1,024 bytes."""

    def __init__(self, slots: int) -> None:
        self.slots = min(slots, MAX_SLOTS)
        self._struct = struct.Struct(f"<dQQQB{self.slots}I{self.slots}H")
        self.size = self._struct.size

    def pack(self, row: Row) -> bytes:
        """Returns the row as bytes."""
        rss = [_NOBODY if size is None else min(size // _KILOBYTE, _NOBODY - 1) for size in row.rss_bytes]
        sizes = [min(size, 0xFFFF) for size in row.batch_sizes]
        return self._struct.pack(row.at, row.used_bytes, row.used_low_bytes, row.budget_bytes, row.level, *rss, *sizes)

    def unpack(self, data: bytes | bytearray | memoryview, offset: int) -> Row:
        """Returns the row that is packed there."""
        at, high, low, budget, level, *slots = self._struct.unpack_from(data, offset)
        rss = [None if size == _NOBODY else size * _KILOBYTE for size in slots[: self.slots]]
        return Row(
            at=at,
            used_bytes=high,
            used_low_bytes=low,
            budget_bytes=budget,
            level=level,
            rss_bytes=rss,
            batch_sizes=slots[self.slots :],
        )

    def fit(self, row: Row) -> Row:
        """Returns a row of another number of slots as one of ours."""
        lacking = self.slots - len(row.rss_bytes)
        row.rss_bytes = (row.rss_bytes + [None] * lacking)[: self.slots]
        row.batch_sizes = (row.batch_sizes + [0] * lacking)[: self.slots]
        return row


class Ring:
    """So many rows of one size, the oldest overwritten first. `offset`: where it lies in the file."""

    def __init__(self, rows: int, row_bytes: int, offset: int) -> None:
        self.rows, self.row_bytes, self.offset = rows, row_bytes, offset
        self.data = bytearray(rows * row_bytes)
        self.count = 0
        self._next = 0

    @property
    def size_bytes(self) -> int:
        """What it takes, full or not."""
        return len(self.data)

    def append(self, packed: bytes) -> tuple[int, bytes]:
        """Keeps a row; returns where it belongs in the file, and what."""
        at = self._next * self.row_bytes
        self.data[at : at + self.row_bytes] = packed
        self._next = (self._next + 1) % self.rows
        self.count = min(self.rows, self.count + 1)
        return self.offset + at, packed

    def places(self) -> Iterator[int]:
        """Yields where its rows lie in `data`, oldest first."""
        first = self._next - self.count
        for number in range(first, self._next):
            yield number % self.rows * self.row_bytes

    def oldest(self) -> float:
        """Returns the date of the oldest row, infinity where there is none."""
        return self.date(next(self.places())) if self.count else math.inf

    def date(self, place: int) -> float:
        """Returns the date of the row there: the first thing in it."""
        date: float = _DATE.unpack_from(self.data, place)[0]
        return date


_DATE = struct.Struct("<d")


def dated(data: bytes, row_bytes: int) -> list[tuple[float, int]]:
    """Returns (date, place) of all rows in a ring's bytes that hold something, oldest first."""
    found = []
    for place in range(0, len(data) - row_bytes + 1, row_bytes):
        date = _DATE.unpack_from(data, place)[0]
        if 0.0 < date < math.inf:
            found.append((date, place))
    return sorted(found)
