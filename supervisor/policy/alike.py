"""Which 64-bit hashes are near each other, and what hangs together by that: exact, without comparing all pairs.

Cut two hashes into m chunks. If they differ in at most N = m * r + a bits (a < m), then one of the first a + 1 chunks
differs in at most r bits, or one of the others in at most r - 1 (if none did, the differences would sum up to more than
N). So each hash is looked up by its chunks and by what is that near to them, and compared with what is found there
(multi-index hashing; Norouzi, Punjani, Fleet 2014). With 4 chunks of 16 bits, 100,000 hashes and N = 8, 14 million
look-ups stand for 5,000 million comparisons.

Galleries are not random: flat pictures and scans share most of their bits, and a bucket may hold nearly everything. Two
things keep that from becoming all pairs after all. A crowd is grown from one of its members: whoever is near one that
is inside is inside, and is never compared with the others there. And a bucket that stays large is looked into by the
chunks that are left.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, combinations

HASH_BITS = 64
MAX_DISTANCE = 16
"""A quarter of the bits. Unrelated pictures differ in 32 on average; beyond some 12 chance brings them together."""

_CHUNK_BITS = 16
_CHUNK_MASK = (1 << _CHUNK_BITS) - 1
_SHIFTS = tuple(range(0, HASH_BITS, _CHUNK_BITS))
_FEW = 48
"""Hashes that are compared pair by pair: setting up anything else takes as long."""
_MANY = 4096
"""Comparisons at once, above which it is worth while to look whether they are needed."""
_CROWD = 512
"""A crowd is grown as long as each member brings in at least one in 512 of those outside."""
_REST = 16
"""A crowd is taken out when what is left outside is at most one in 16."""


class Groups:
    """What hangs together, among the numbers 0 to `count` - 1 (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, number: int) -> int:
        """Returns the number that stands for the group."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    def unite(self, one: int, other: int) -> None:
        """Makes two groups one; the lower of the numbers that stand for them stands for both."""
        one, other = self.find(one), self.find(other)
        if one != other:
            self._parents[max(one, other)] = min(one, other)

    def several(self) -> list[list[int]]:
        """Returns the groups of two and more, each in order, by their first number."""
        found: dict[int, list[int]] = {}
        for number in range(len(self._parents)):
            found.setdefault(self.find(number), []).append(number)
        return [group for group in found.values() if len(group) > 1]


def distance(one: int, other: int) -> int:
    """Returns in how many bits two hashes differ."""
    return (one ^ other).bit_count()


def group_hashes(hashes: Sequence[int], limit: int) -> list[list[int]]:
    """Returns groups of two and more places in `hashes`: in a group each one is within `limit` bits (0 to
    MAX_DISTANCE) of some other one, and of none outside."""
    assert 0 <= limit <= MAX_DISTANCE
    numbers: dict[int, int] = {}
    of_place = [numbers.setdefault(each, len(numbers)) for each in hashes]
    groups = Groups(len(numbers))
    if limit:
        _Linker(numbers, groups, limit).link(list(numbers), _SHIFTS)
    places: dict[int, list[int]] = {}
    for place, number in enumerate(of_place):
        places.setdefault(groups.find(number), []).append(place)
    return [group for group in places.values() if len(group) > 1]


def masks_within(radius: int, bits: int = _CHUNK_BITS) -> list[list[int]]:
    """Returns the patterns of 1 to `radius` bits among `bits`, by the number of their highest bit."""
    masks: list[list[int]] = [[] for _ in range(bits)]
    for size in range(1, radius + 1):
        for chosen in combinations(range(bits), size):
            masks[chosen[-1]].append(sum(1 << bit for bit in chosen))
    return masks


def radii(chunks: int, limit: int) -> list[int]:
    """Returns how near a chunk must be for its hash to be a candidate, for each of the chunks; -1: it need not be
    looked at."""
    radius, rest = divmod(limit, chunks)
    return [radius if number <= rest else radius - 1 for number in range(chunks)]


class _Linker:
    """Unites what is near, in one set of distinct hashes; `numbers` are theirs in `groups`."""

    def __init__(self, numbers: dict[int, int], groups: Groups, limit: int) -> None:
        self._numbers, self._groups, self._limit = numbers, groups, limit

    def link(self, values: list[int], shifts: tuple[int, ...]) -> None:
        """Unites all that is near among `values`; the chunks at `shifts` have not been looked at yet."""
        if len(values) > _FEW:
            if self._are_one(values):
                return
            values = self._without_crowds(values)
        if len(values) > _FEW and shifts:
            self._link_by_chunks(values, shifts)
            return
        for place, value in enumerate(values):
            self._compare(value, values[place + 1 :])

    def _link_by_chunks(self, values: list[int], shifts: tuple[int, ...]) -> None:
        for shift, radius in zip(shifts, radii(len(shifts), self._limit), strict=True):
            if radius < 0:
                continue
            left = tuple(other for other in shifts if other != shift)
            buckets: dict[int, list[int]] = {}
            for value in values:
                buckets.setdefault(value >> shift & _CHUNK_MASK, []).append(value)
            for bucket in buckets.values():
                if len(bucket) > 1:
                    self.link(bucket, left)
            if radius:
                self._cross(buckets, radius, left)

    def _cross(self, buckets: dict[int, list[int]], radius: int, left: tuple[int, ...]) -> None:
        """Links each bucket with those near it whose chunk is greater: those that turn a highest bit on."""
        masks = masks_within(radius)
        every = sum(map(len, masks)) > len(buckets)  # fewer buckets than neighbours: ask each bucket
        for key, bucket in buckets.items():
            if every:
                near = [other for each, other in buckets.items() if each > key and (each ^ key).bit_count() <= radius]
            else:
                near = [
                    buckets[key ^ mask]
                    for bit, group in enumerate(masks)
                    if not key >> bit & 1
                    for mask in group
                    if key ^ mask in buckets
                ]
            if len(bucket) * sum(map(len, near)) <= _MANY:
                candidates = list(chain.from_iterable(near))
                for value in bucket:
                    self._compare(value, candidates)
            else:
                for other in near:
                    self.link(bucket + other, left)

    def _compare(self, value: int, others: Iterable[int]) -> None:
        limit = self._limit
        for other in [other for other in others if (value ^ other).bit_count() <= limit]:
            self._groups.unite(self._numbers[value], self._numbers[other])

    def _are_one(self, values: list[int]) -> bool:
        find, numbers = self._groups.find, self._numbers
        first = find(numbers[values[0]])
        return all(find(numbers[value]) == first for value in values)

    def _without_crowds(self, values: list[int]) -> list[int]:
        """Takes out those whose every link has been found, as long as they come in crowds; returns the others."""
        while len(values) > _FEW:
            inside, scanned, outside = self._grow(values)
            if len(outside) * _REST > len(values):
                return inside[scanned:] + outside
            self._join(inside, scanned, outside)
            values = outside
        return values

    def _grow(self, values: list[int]) -> tuple[list[int], int, list[int]]:
        """Grows a crowd around one value while it grows fast. Returns who is inside, how many of them have been
        compared with all outside, and who is outside."""
        limit = self._limit
        middle = len(values) // 2
        inside, scanned = [values[middle]], 0
        outside = values[:middle] + values[middle + 1 :]
        while outside and scanned < len(inside):
            value = inside[scanned]
            hits = [other for other in outside if (value ^ other).bit_count() <= limit]
            scanned += 1
            self._compare(value, hits)
            inside += hits
            slow = len(hits) * _CROWD < len(outside)
            outside = [other for other in outside if (value ^ other).bit_count() > limit] if hits else outside
            if slow:
                break
        return inside, scanned, outside

    def _join(self, inside: list[int], scanned: int, outside: list[int]) -> None:
        """Links the few outside with the crowd: one link is enough, and whoever is too far from the first of the crowd
        has none."""
        limit, first, left = self._limit, inside[0], inside[scanned:]
        reach = limit + max((first ^ value).bit_count() for value in inside)
        for value in outside:
            if (first ^ value).bit_count() <= reach:
                near = next((other for other in left if (value ^ other).bit_count() <= limit), None)
                if near is not None:
                    self._groups.unite(self._numbers[value], self._numbers[near])
