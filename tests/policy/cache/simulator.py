"""A reference cache in memory that asks a policy as the store does: a random sample, then who goes.

It keeps its own exact books, so that a policy that loses count is found out; `Exact` is textbook LRU beside it.
"""

import bisect
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from random import Random

from supervisor.policy.cache.entry import Entry, Key, Policy

ROUNDS = 64


def key_of(number: int) -> Key:
    """The key of the object of that number."""
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


class Simulator:
    """A cache of `limit_bytes` and `limit_entries` under a policy; the clock counts requests."""

    def __init__(self, policy: Policy, limit_bytes: int, limit_entries: int, sample: int = 32, seed: int = 1) -> None:
        self.policy, self.limit_bytes, self.limit_entries = policy, limit_bytes, limit_entries
        self.entries: dict[Key, Entry] = {}
        self.bytes = 0
        self.requests = self.hits = self.saved_seconds = 0.0
        self._sample, self._random = sample, Random(seed)
        self._keys: list[Key] = []
        self._at: dict[Key, int] = {}

    def request(self, key: Key, size_bytes: int = 1, cost_seconds: float = 1.0, small: bool = False) -> bool:
        """Looks a key up, and keeps it if it was not there; tells whether it was."""
        self.requests += 1
        now = self.requests
        entry = self.entries.get(key)
        if entry is not None:
            self.hits += 1
            self.saved_seconds += cost_seconds
            self.policy.hit(key, now)
            self.entries[key] = Entry(key, entry.size_bytes, cost_seconds, entry.made, now, entry.hits + 1, entry.small)
            return True
        self.policy.missed(key, now)
        new = Entry(key, size_bytes, cost_seconds, now, now, 0, small)
        if self._make_room(size_bytes, now) and self.policy.admit(new, now):
            self.entries[key] = new
            self._at[key] = len(self._keys)
            self._keys.append(key)
            self.bytes += size_bytes
        return False

    def sample(self) -> list[Entry]:
        """A few entries at random, none twice."""
        count = len(self._keys)
        drawn = {self._keys[int(self._random.random() * count)] for _ in range(self._sample if count else 0)}
        return [self.entries[key] for key in sorted(drawn)]

    def remove(self, key: Key) -> bool:
        """Lets an entry go; tells whether there was one."""
        entry = self.entries.pop(key, None)
        self.policy.forget(key)
        if entry is None:
            return False
        self.bytes -= entry.size_bytes
        at, last = self._at.pop(key), self._keys.pop()
        if last != key:
            self._keys[at] = last
            self._at[last] = at
        return True

    def _make_room(self, size_bytes: int, now: float) -> bool:
        if size_bytes > self.limit_bytes:
            return False
        for _ in range(ROUNDS):
            bytes_needed = self.bytes + size_bytes - self.limit_bytes
            entries_needed = len(self.entries) + 1 - self.limit_entries
            if bytes_needed <= 0 and entries_needed <= 0:
                return True
            for key in self.policy.victims(self.sample(), bytes_needed, entries_needed, now):
                self.remove(key)
        return False


class Exact:
    """Textbook LRU, by which the traces are judged."""

    def __init__(self, limit_entries: int) -> None:
        self._limit = limit_entries
        self._keys: OrderedDict[Key, None] = OrderedDict()

    def request(self, key: Key) -> bool:
        """Looks a key up, and keeps it if it was not there; tells whether it was."""
        hit = key in self._keys
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)
        return hit


def zipf(objects: int, exponent: float, requests: int, seed: int = 2) -> list[int]:
    """Requests for objects of which the k-th is asked for in proportion to 1 / k^exponent."""
    shares = list(itertools.accumulate(1 / rank**exponent for rank in range(1, objects + 1)))
    random = Random(seed)
    return [bisect.bisect(shares, random.random() * shares[-1]) for _ in range(requests)]


def loop(objects: int, laps: int) -> list[int]:
    """The same gallery, again and again."""
    return list(range(objects)) * laps


def scan(objects: int, first: int) -> list[int]:
    """Every object once."""
    return list(range(first, first + objects))


def mixed(objects: int, requests: int, seed: int = 3) -> list[int]:
    """What a gallery's server sees: popular images, and from time to time a walk over images nobody asked for yet."""
    popular = zipf(objects, 1.0, requests, seed)
    out: list[int] = []
    fresh = objects
    for start in range(0, requests, objects):
        out += popular[start : start + objects]
        out += scan(objects // 2, fresh)
        fresh += objects // 2
    return out


def hit_rate(request: Callable[[Key], bool], trace: Sequence[int], warm: float = 0.5) -> float:
    """The share of hits after the first `warm` part of the trace."""
    keys = {number: key_of(number) for number in set(trace)}
    begin = int(len(trace) * warm)
    hits = sum(hit for at, hit in enumerate(_answers(request, trace, keys)) if at >= begin)
    return hits / (len(trace) - begin)


def _answers(request: Callable[[Key], bool], trace: Iterable[int], keys: dict[int, Key]) -> Iterable[bool]:
    return (request(keys[number]) for number in trace)
