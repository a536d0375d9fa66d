"""What a policy sees of a cache entry, and what it may decide.

The store holds a million entries in SQLite and a policy must not mirror them in memory. So a policy never walks
the cache: when room is needed it is handed a *sample* of entries with their recency (two coarse columns of the
index) and names the worst of them. Sampling a few dozen at random comes within a point or two of an exact order
(Redis and hyperbolic caching rest on that), and whatever else a policy remembers is of fixed size.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

Key = bytes
"""Uniformly distributed bytes (a hash of the content, then the number of the step), at least 10."""


class Entry(msgspec.Struct, frozen=True):
    """One entry: its size and what it saves. `made` and `seen` are times on the caller's clock, in seconds;
    `hits` how often it was found since it was made; `small`: its value lies in the index, not in a file."""

    key: Key
    size_bytes: int
    cost_seconds: float
    made: float
    seen: float
    hits: int = 0
    small: bool = False


class Policy(Protocol):
    """Who stays. Every look-up is told by `hit` or `missed`, every entry that comes by `admit`, every one that
    goes, for whatever reason, by `forget`."""

    name: str

    def admit(self, entry: Entry, now: float) -> bool:
        """Tells whether a new entry is worth a place, and takes it to be kept when so."""

    def hit(self, key: Key, now: float) -> None:
        """An entry was found."""

    def missed(self, key: Key, now: float) -> None:
        """A key was looked for and not found."""

    def forget(self, key: Key) -> None:
        """An entry is gone."""

    def victims(self, sample: Sequence[Entry], bytes_needed: int, entries_needed: int, now: float) -> list[Key]:
        """Returns entries to cull, worst first, until both needs are met or the sample has no more to give. May
        name entries that are not in the sample but that it was told of."""

    def expired(self, entry: Entry, now: float) -> bool:
        """Tells whether an entry has outlived its time, whatever the room."""

    def dump(self) -> bytes:
        """Returns what must outlive the process, compact; empty when it is all in the entries."""

    def load(self, state: bytes) -> None:
        """Takes what `dump` returned; what cannot be understood is ignored: a policy can always begin anew."""


def take(ordered: Sequence[Entry], bytes_needed: int, entries_needed: int) -> list[Key]:
    """Returns the keys from the front of `ordered` until both needs are met."""
    taken: list[Key] = []
    for entry in ordered:
        if bytes_needed <= 0 and len(taken) >= entries_needed:
            break
        taken.append(entry.key)
        bytes_needed -= entry.size_bytes
    return taken


def large_first(sample: Sequence[Entry]) -> Sequence[Entry]:
    """Returns the large entries of a sample, all of it where there are none: small values are kept."""
    return [entry for entry in sample if not entry.small] or sample
