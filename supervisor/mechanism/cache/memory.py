"""The memory level: inline values lately used, so that what is asked for again and again needs no SQL."""

from collections import OrderedDict
from typing import Literal

from supervisor.mechanism.cache.index import Row
from supervisor.policy.cache.entry import Key

TrimLevel = Literal["gentle", "moderate", "aggressive", "emergency"]
SHARE_LEFT: dict[TrimLevel, float] = {"gentle": 1.0, "moderate": 0.5, "aggressive": 0.1, "emergency": 0.0}
"""What of its limit each clean-up tier leaves it."""
_ROW_OVERHEAD_BYTES = 400
"""Measured: the key, the row and their places in the dictionary."""


class MemoryLevel:
    """LRU of inline rows, at most `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._rows: OrderedDict[Key, Row] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Key) -> Row | None:
        """Returns a row, which is now the last one to go."""
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def put(self, key: Key, row: Row) -> None:
        """Takes an inline row; the longest unused go for it."""
        cost = _cost(row)
        if row.value is None or cost > self.limit_bytes:
            return
        self.drop(key)
        self._rows[key] = row
        self.bytes += cost
        self._shrink(self.limit_bytes)

    def drop(self, key: Key) -> None:
        """Forgets a row."""
        row = self._rows.pop(key, None)
        if row is not None:
            self.bytes -= _cost(row)

    def bound(self, limit_bytes: int) -> None:
        """Changes the limit."""
        self.limit_bytes = limit_bytes
        self._shrink(limit_bytes)

    def trim(self, level: TrimLevel) -> int:
        """Shrinks to what the clean-up tier leaves; returns the bytes given back."""
        before = self.bytes
        self._shrink(int(self.limit_bytes * SHARE_LEFT[level]))
        return before - self.bytes

    def _shrink(self, limit_bytes: int) -> None:
        while self.bytes > limit_bytes and self._rows:
            _, row = self._rows.popitem(last=False)
            self.bytes -= _cost(row)


def _cost(row: Row) -> int:
    return len(row.record) + len(row.value or b"") + _ROW_OVERHEAD_BYTES
