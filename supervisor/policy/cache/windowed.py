"""Newcomers are given a window of time; to stay they must be asked for more than what they would displace.

W-TinyLFU (Einziger, Eytan, Friedman and Manes, 2018), made for a store that can only be sampled. New entries
enter a short first-in-first-out *window*. When room is needed, the one that has been in the window longest is
measured against the worst of a sample of the others, by how often each was asked for lately (`sketch`); the
loser goes. A tie is the newcomer's loss, and the request that brought it does not count for it: so a loop over
more than the cache holds leaves a fixed part of it in place, where LRU would turn everything over for nothing,
and a scan passes through the window without touching the rest.

How long the window should be depends on the load: a hill climber moves it by the hit rate it sees (`climb`).

`Adaptive` weighs by frequency alone. `CostAware` weighs by frequency x saved seconds / bytes: what the space
earns, as GreedyDual-Size-Frequency does; its ageing is the sketch's halving.
"""

from collections import OrderedDict
from collections.abc import Sequence

from supervisor.policy.cache.climb import HillClimber
from supervisor.policy.cache.entry import Entry, Key, large_first
from supervisor.policy.cache.sketch import MAX_COUNT, FrequencySketch

WINDOW_MAX = 32_768
"""Most entries in the window: the one list of entries that is held in memory, about 10 MB at its longest."""


class Adaptive:
    """Frequency with a climbing window. `entries_expected` sizes the sketch and the climber's periods."""

    name = "adaptive"

    def __init__(self, entries_expected: int) -> None:
        self._expected = max(1, entries_expected)
        self._sketch = FrequencySketch(self._expected)
        self._climber = HillClimber(PERIODS_OF * min(self._expected, PERIOD_ENTRIES_MAX))
        self._window: OrderedDict[Key, list[float]] = OrderedDict()  # key -> [bytes, seconds, hits]
        self.entries = 0
        """How many it was told of; the store's own count is the truth."""

    def admit(self, entry: Entry, now: float) -> bool:
        """Everyone gets a chance: the window is for finding out."""
        self._window[entry.key] = [entry.size_bytes, entry.cost_seconds, 0]
        self.entries += 1
        while len(self._window) > self._window_limit():
            self._window.popitem(last=False)  # there was room: it stays untested
        return True

    def hit(self, key: Key, now: float) -> None:
        """Counts the use."""
        self._sketch.add(key)
        self._climber.saw(hit=True)
        if (inside := self._window.get(key)) is not None:
            inside[2] += 1

    def missed(self, key: Key, now: float) -> None:
        """Counts the wish."""
        self._sketch.add(key)
        self._climber.saw(hit=False)

    def forget(self, key: Key) -> None:
        """One fewer."""
        self.entries = max(0, self.entries - 1)
        self._window.pop(key, None)

    def victims(self, sample: Sequence[Entry], bytes_needed: int, entries_needed: int, now: float) -> list[Key]:
        """The losers of newcomers against the worst of the sample."""
        settled = [entry for entry in large_first(sample) if entry.key not in self._window]
        ranked = sorted(
            ((self._worth(entry), entry.seen, entry.key, entry.size_bytes) for entry in settled), reverse=True
        )
        taken: list[Key] = []
        while bytes_needed > 0 or len(taken) < entries_needed:
            newcomer = self._leaving() if ranked else self._oldest()
            if newcomer is not None:
                key, size_bytes, worth = newcomer
                if ranked and worth > ranked[-1][0]:
                    _, _, key, size_bytes = ranked.pop()
            elif ranked:
                _, _, key, size_bytes = ranked.pop()
            else:
                break
            taken.append(key)
            bytes_needed -= size_bytes
        return taken

    def expired(self, entry: Entry, now: float) -> bool:
        """Nothing ages by itself."""
        return False

    def dump(self) -> bytes:
        """The counts: what is popular must not be learned again after each start."""
        return self._sketch.dump()

    def load(self, state: bytes) -> None:
        """Takes the counts, where they are of the same size."""
        self._sketch.load(state)

    def window_keys(self) -> set[Key]:
        """Returns who is in the window."""
        return set(self._window)

    def weigh(self, count: int, size_bytes: float, cost_seconds: float) -> float:
        """Returns what an entry is worth that was asked for `count` times lately."""
        return count

    def _worth(self, entry: Entry) -> float:
        # Hits kept with the entry stand in where the sketch is new and knows nothing yet.
        count = self._sketch.count(entry.key) or min(entry.hits, MAX_COUNT)
        return self.weigh(count, entry.size_bytes, entry.cost_seconds)

    def _leaving(self) -> tuple[Key, int, float] | None:
        return self._oldest() if len(self._window) >= self._window_limit() else None

    def _oldest(self) -> tuple[Key, int, float] | None:
        if not self._window:
            return None
        key, (size_bytes, cost_seconds, hits) = self._window.popitem(last=False)
        count = self._sketch.count(key) - (0 if hits else 1)
        return key, int(size_bytes), self.weigh(count, size_bytes, cost_seconds)

    def _window_limit(self) -> int:
        return max(1, min(WINDOW_MAX, int(self.entries * self._climber.share)))


PERIODS_OF = 10
"""The climber compares hit rates over so many requests an entry."""
PERIOD_ENTRIES_MAX = 10_000
"""A cache that may hold millions is not made to wait for millions of requests before it learns."""
_BYTE_FLOOR = 64
"""What an entry costs in the index at least; keeps empty values from being worth infinitely much."""


class CostAware(Adaptive):
    """What a byte earns: frequency x seconds saved / bytes."""

    name = "cost"

    def weigh(self, count: int, size_bytes: float, cost_seconds: float) -> float:
        """Returns seconds saved a byte, by how often they are saved."""
        return count * max(cost_seconds, 1e-6) / (size_bytes + _BYTE_FLOOR)
