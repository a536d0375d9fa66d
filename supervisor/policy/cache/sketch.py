"""How often was a key asked for lately? Answered from a fixed number of bytes.

A count-min sketch with conservative update: four rows of counters, a key's count is the least of its four. All
counters are halved after a period of ten times the expected keys, so that the past fades (TinyLFU, Einziger,
Friedman and Manes, 2017). Counters stop at 15, as there; a byte each, because Python halves bytes by a table.
"""

import zlib

from supervisor.policy.cache.entry import Key

MAX_COUNT = 15
ROWS = 4
PERIOD_FACTOR = 10
_MIN_WIDTH, _MAX_WIDTH = 1 << 10, 1 << 20
_MULTIPLIER = 0x9E3779B97F4A7C15F39CC0605CEDC835  # 2^128 / golden ratio: spreads neighbours apart
_MASK = (1 << 128) - 1
_HALVES = bytes(value >> 1 for value in range(256))


class FrequencySketch:
    """Counts of about `keys` keys, in at most 4 MiB."""

    def __init__(self, keys: int) -> None:
        width = _MIN_WIDTH
        while width < min(keys, _MAX_WIDTH):
            width *= 2
        self._mask = width - 1
        self._rows = [bytearray(width) for _ in range(ROWS)]
        self._period = PERIOD_FACTOR * max(keys, 100)
        self._counted = 0

    def add(self, key: Key) -> None:
        """Counts a key once more."""
        mixed = int.from_bytes(key[-10:], "big") * _MULTIPLIER & _MASK
        mask = self._mask
        one, two, three, four = self._rows
        a, b, c, d = mixed >> 40 & mask, mixed >> 62 & mask, mixed >> 84 & mask, mixed >> 106 & mask
        least = min(one[a], two[b], three[c], four[d])
        if least < MAX_COUNT:
            more = least + 1
            if one[a] == least:
                one[a] = more
            if two[b] == least:
                two[b] = more
            if three[c] == least:
                three[c] = more
            if four[d] == least:
                four[d] = more
        self._counted += 1
        if self._counted >= self._period:
            self._rows = [row.translate(_HALVES) for row in self._rows]
            self._counted //= 2

    def count(self, key: Key) -> int:
        """Returns how often a key was counted lately; never too little, seldom too much."""
        mixed = int.from_bytes(key[-10:], "big") * _MULTIPLIER & _MASK
        mask = self._mask
        one, two, three, four = self._rows
        return min(
            one[mixed >> 40 & mask], two[mixed >> 62 & mask], three[mixed >> 84 & mask], four[mixed >> 106 & mask]
        )

    def dump(self) -> bytes:
        """Returns the counts, compressed."""
        return zlib.compress(self._counted.to_bytes(8, "big") + b"".join(self._rows), 1)

    def load(self, state: bytes) -> bool:
        """Takes dumped counts; False, and nothing changed, where they are none of a sketch of this size."""
        width = self._mask + 1
        try:
            raw = zlib.decompressobj().decompress(state, 8 + ROWS * width + 1)
        except zlib.error:
            return False
        if len(raw) != 8 + ROWS * width or max(raw[8:], default=0) > MAX_COUNT:
            return False
        self._counted = min(int.from_bytes(raw[:8], "big"), self._period - 1)
        self._rows = [bytearray(raw[8 + row * width : 8 + (row + 1) * width]) for row in range(ROWS)]
        return True


class SeenBefore:
    """Whether a key was asked for before: tells a first sight, which no cache could serve, from a re-reference.

    Two Bloom filters of fixed size; the older is emptied when the younger has taken its share of keys, so a key
    is remembered for between one and two shares. At most about 2 % of first sights are taken for re-references.
    """

    _BITS = 1 << 22
    _SHARE = 500_000

    def __init__(self) -> None:
        self._young, self._old = bytearray(self._BITS // 8), bytearray(self._BITS // 8)
        self._taken = 0

    def test_and_add(self, key: Key) -> bool:
        """Returns whether the key was seen before; from now on it was."""
        mixed = int.from_bytes(key[-10:], "big") * _MULTIPLIER & _MASK
        places = [(mixed >> shift) % self._BITS for shift in (40, 62, 84, 106)]
        in_young = all(self._young[place >> 3] >> (place & 7) & 1 for place in places)
        seen = in_young or all(self._old[place >> 3] >> (place & 7) & 1 for place in places)
        if not in_young:
            if self._taken >= self._SHARE:
                self._old, self._young, self._taken = self._young, bytearray(self._BITS // 8), 0
            for place in places:
                self._young[place >> 3] |= 1 << (place & 7)
            self._taken += 1
        return seen

    def dump(self) -> bytes:
        """Returns the filters, compressed."""
        return zlib.compress(self._taken.to_bytes(8, "big") + self._young + self._old, 1)

    def load(self, state: bytes) -> bool:
        """Takes dumped filters; False, and nothing changed, where they are none."""
        size = self._BITS // 8
        try:
            raw = zlib.decompressobj().decompress(state, 8 + 2 * size + 1)
        except zlib.error:
            return False
        if len(raw) != 8 + 2 * size:
            return False
        self._taken = min(int.from_bytes(raw[:8], "big"), self._SHARE)
        self._young, self._old = bytearray(raw[8 : 8 + size]), bytearray(raw[8 + size :])
        return True
