"""The memory of the past: total, budget, level, every worker, every batch size, and what happened.

Three tiers of rows, each coarser and reaching further back than the one before (`rings`):

    1 s a row      some 30 minutes of work; while all workers rest, one row stands for 10 s
    10 s a row     some 6 hours
    120 s a row    3 days

and a ring of marks (recycles, deaths, shrinks, levels) to be drawn beside them. All of it has a size that is known at
the start. Each row that is closed is also a `KeepHistory` for the ring file in the state directory: the same bytes at
the same places, read back at the next start, and by `supervisor history` where no supervisor runs.
"""

import struct
from collections.abc import Iterator, Sequence

import msgspec

from protocol.messages import HISTORY_ROWS_AT_MOST, HistoryPage, Mark, MarkKind, WorkerHistory
from supervisor.policy.levels import Level
from supervisor.policy.rings import Layout, Ring, Row, dated

PERIODS_SECONDS = (1.0, 10.0, 120.0)
REST_SECONDS = 10.0
"""While nothing happens, a row a second would only push out what did."""
DEFAULT_ROWS = 2_160
MARKS = 2_048
MARKS_A_PAGE = 1_000
_NUMBERS_A_PAGE = 300_000
"""Bounds a page of many workers below the longest frame: some 10 bytes a number."""

_MAGIC = b"gs-history 1\n"
_HEADER = struct.Struct("<16sHH")
_MARK = struct.Struct("<dBhI")
_KINDS: tuple[MarkKind, ...] = (
    "level", "recycle", "death", "kill", "shrink", "cleanup", "leak", "pause", "stop", "start",
)  # fmt: skip
"""By their numbers in the file: further ones are added at the end."""


class History:
    """The rows and marks of one pool of so many slots. Dates are seconds since the epoch."""

    def __init__(self, slots: int, rows: int = DEFAULT_ROWS) -> None:
        self.layout = Layout(slots)
        self.tiers: list[Ring] = []
        offset = _HEADER.size
        for _ in PERIODS_SECONDS:
            self.tiers.append(Ring(rows, self.layout.size, offset))
            offset += self.tiers[-1].size_bytes
        self.marks = Ring(MARKS, _MARK.size, offset)
        self._open: list[Row | None] = [None] * len(PERIODS_SECONDS)
        self._began = [0.0] * len(PERIODS_SECONDS)
        self._unsaved: list[tuple[int, bytes]] = []

    @property
    def size_bytes(self) -> int:
        """What memory and file each hold, full or not."""
        return self.marks.offset + self.marks.size_bytes

    @property
    def count(self) -> int:
        """How many rows are kept."""
        return sum(tier.count for tier in self.tiers)

    @property
    def limit_count(self) -> int:
        """How many rows can be kept."""
        return sum(tier.rows for tier in self.tiers)

    # ---- taking in -------------------------------------------------------------------------------

    def note(self, sample: Row, *, resting: bool) -> None:
        """Takes in one look. Rows that are over by now are closed."""
        sample = self.layout.fit(sample)
        self._add(0, sample, REST_SECONDS if resting else PERIODS_SECONDS[0])

    def _add(self, tier: int, row: Row, period: float) -> None:
        opened = self._open[tier]
        if opened is None:
            self._open[tier], self._began[tier] = row, self._began[tier] or row.at
            opened = row
        else:
            opened.absorb(row)
        if opened.at - self._began[tier] < period:
            return
        self._open[tier], self._began[tier] = None, opened.at
        self._unsaved.append(self.tiers[tier].append(self.layout.pack(opened)))
        if tier + 1 < len(self.tiers):
            self._add(tier + 1, msgspec.structs.replace(opened), PERIODS_SECONDS[tier + 1])

    def mark(self, at: float, kind: MarkKind, slot: int | None = None, figure: int = 0) -> None:
        """Keeps that something happened."""
        place = -1 if slot is None else slot
        packed = _MARK.pack(at, _KINDS.index(kind), place, max(0, min(figure, 0xFFFF_FFFF)))
        self._unsaved.append(self.marks.append(packed))

    def unsaved(self) -> list[tuple[int, bytes]]:
        """Returns what the file has not been given yet: (place, bytes)."""
        unsaved, self._unsaved = self._unsaved, []
        return unsaved

    # ---- across restarts -------------------------------------------------------------------------

    def image(self) -> bytes:
        """Returns what the whole file holds."""
        header = _HEADER.pack(_MAGIC, self.layout.slots, self.tiers[0].rows)
        return b"".join((header, *(ring.data for ring in self.tiers), self.marks.data))

    def restore(self, image: bytes) -> None:
        """Takes over what the file of an earlier run holds; of another number of slots or rows too. What is no such
        file is passed over. From here on there is a file: all of it is unsaved."""
        found = read_image(image)
        if found is not None:
            self._take_over(found)
        self._unsaved = [(0, self.image())]

    def _take_over(self, found: "History") -> None:
        for ring, old in zip(self.tiers, found.tiers, strict=True):
            for place in old.places():
                ring.append(self.layout.pack(self.layout.fit(found.layout.unpack(old.data, place))))
        for place in found.marks.places():
            self.marks.append(bytes(found.marks.data[place : place + _MARK.size]))

    def _fill(self, image: bytes) -> None:
        for ring in (*self.tiers, self.marks):
            part = image[ring.offset : ring.offset + ring.size_bytes]
            for _, place in dated(part, ring.row_bytes):
                ring.append(part[place : place + ring.row_bytes])

    # ---- telling ---------------------------------------------------------------------------------

    def page(
        self, request_id: int | str, since: float | None, resolution: float, limit: int, now: float
    ) -> HistoryPage:
        """Returns the columns of what lies after `since`."""
        limit = max(1, min(limit, HISTORY_ROWS_AT_MOST, _NUMBERS_A_PAGE // (5 + 2 * self.layout.slots)))
        chosen = self._tier_reaching(since)
        rows = list(self._rows(chosen, since))
        width = resolution
        if len(rows) > limit:
            width = max(resolution, (rows[-1].at - rows[0].at) / max(1, limit - 1))
        rows = _thinned(rows, width)
        marks = [mark for mark in self._marks() if since is None or mark.at > since][-MARKS_A_PAGE:]
        start = since if since is not None else rows[0].at if rows else now
        return HistoryPage(
            id=request_id,
            since=start,
            until=rows[-1].at if rows else start,
            period_seconds=max(PERIODS_SECONDS[chosen], width),
            rest_seconds=max(REST_SECONDS, PERIODS_SECONDS[chosen], width),
            at=[round(row.at, 3) for row in rows],
            used_bytes=[row.used_bytes for row in rows],
            used_low_bytes=[row.used_low_bytes for row in rows],
            budget_bytes=[row.budget_bytes for row in rows],
            level=[row.level for row in rows],
            levels=[level.word for level in Level],
            workers=[_column(rows, slot) for slot in range(self.layout.slots)],
            marks=marks,
        )

    def _tier_reaching(self, since: float | None) -> int:
        """The finest tier that reaches back to `since`, or that has forgotten nothing yet."""
        for number, tier in enumerate(self.tiers):
            if tier.count < tier.rows or (since is not None and tier.oldest() <= since):
                return number
        return len(self.tiers) - 1

    def _rows(self, chosen: int, since: float | None) -> Iterator[Row]:
        """Rows of a tier, and what the finer ones hold beyond its last one."""
        last = since if since is not None else 0.0
        for tier in reversed(self.tiers[: chosen + 1]):
            places = [place for place in tier.places() if tier.date(place) > last]
            for place in places:
                yield self.layout.unpack(tier.data, place)
            last = tier.date(places[-1]) if places else last

    def _marks(self) -> Iterator[Mark]:
        for place in self.marks.places():
            at, kind, slot, figure = _MARK.unpack_from(self.marks.data, place)
            if kind < len(_KINDS):
                yield Mark(at, _KINDS[kind], slot if slot >= 0 else None, figure)


def read_image(image: bytes) -> History | None:
    """Returns the history that a file holds; None: it is none of ours, or too short."""
    if len(image) < _HEADER.size:
        return None
    magic, slots, rows = _HEADER.unpack_from(image)
    if magic.rstrip(b"\0") != _MAGIC or not slots or not rows:
        return None
    found = History(slots, rows)
    if len(image) < found.size_bytes:
        return None
    found._fill(image)
    return found


def _thinned(rows: Sequence[Row], width: float) -> list[Row]:
    if width <= 0.0:
        return list(rows)
    kept: list[Row] = []
    bucket = None
    for row in rows:
        number = row.at // width
        if kept and number == bucket:
            kept[-1].absorb(row)
        else:
            kept.append(row)
        bucket = number
    return kept


def _column(rows: Sequence[Row], slot: int) -> WorkerHistory:
    rss = [row.rss_bytes[slot] for row in rows]
    sizes = [None if row.rss_bytes[slot] is None else row.batch_sizes[slot] for row in rows]
    return WorkerHistory(slot=slot, rss_bytes=rss, batch_size=sizes)
