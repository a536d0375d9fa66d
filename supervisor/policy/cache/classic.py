"""The three classic policies, each a sort of the sample: least recently used, least often used, oldest."""

from collections.abc import Sequence

from supervisor.policy.cache.entry import Entry, Key, large_first, take


class _Stateless:
    """What follows from the entries alone needs no memory of its own."""

    def admit(self, entry: Entry, now: float) -> bool:
        """Every entry is worth a place."""
        return True

    def hit(self, key: Key, now: float) -> None:
        """The entry itself carries it."""

    def missed(self, key: Key, now: float) -> None:
        """Misses teach nothing here."""

    def forget(self, key: Key) -> None:
        """Nothing was kept."""

    def expired(self, entry: Entry, now: float) -> bool:
        """Nothing ages by itself."""
        return False

    def dump(self) -> bytes:
        """Nothing to keep."""
        return b""

    def load(self, state: bytes) -> None:
        """Nothing to take."""


class LeastRecentlyUsed(_Stateless):
    """LRU: what was not used for the longest time goes."""

    name = "lru"

    def victims(self, sample: Sequence[Entry], bytes_needed: int, entries_needed: int, now: float) -> list[Key]:
        """The longest unused first."""
        return take(sorted(large_first(sample), key=lambda entry: entry.seen), bytes_needed, entries_needed)


class LeastFrequentlyUsed(_Stateless):
    """LFU with ageing: uses count half after each `half_life_seconds` without one, so old fame fades."""

    name = "lfu"

    def __init__(self, half_life_seconds: float) -> None:
        self._half_life_seconds = half_life_seconds

    def victims(self, sample: Sequence[Entry], bytes_needed: int, entries_needed: int, now: float) -> list[Key]:
        """The least used first; among equals the longest unused."""
        half_life = self._half_life_seconds

        def worth(entry: Entry) -> tuple[float, float]:
            idle = max(0.0, now - entry.seen)
            return (1 + entry.hits) * 2.0 ** -min(idle / half_life, 1000.0), entry.seen

        return take(sorted(large_first(sample), key=worth), bytes_needed, entries_needed)


class TimeToLive(_Stateless):
    """TTL: an entry lives `ttl_seconds` from when it was made; for room, the oldest goes."""

    name = "ttl"

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl_seconds = ttl_seconds

    def victims(self, sample: Sequence[Entry], bytes_needed: int, entries_needed: int, now: float) -> list[Key]:
        """The oldest first."""
        return take(sorted(large_first(sample), key=lambda entry: entry.made), bytes_needed, entries_needed)

    def expired(self, entry: Entry, now: float) -> bool:
        """Older than its time."""
        return now - entry.made >= self._ttl_seconds
