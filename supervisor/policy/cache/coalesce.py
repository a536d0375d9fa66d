"""Identical images in flight are worked on once: the first is run, the others wait for what it leaves in the cache.

Identical means the same content under the same steps, or, as long as no content hash is known, the same file
under them (a file submitted twice). Which of the two a key says is the caller's business: `LookedUp` gives one.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")


class Coalescer(Generic[Waiting]):
    """Who runs and who waits. At most `limit` items wait; what would be more runs by itself."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._followers: dict[Hashable, list[Waiting]] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting

    def join(self, key: Hashable, item: Waiting) -> bool:
        """Returns True when the item is to be run (nobody works on its like), False when it waits for the one
        that does. The one that runs must be ended by `end`, whatever became of it."""
        followers = self._followers.get(key)
        if followers is None:
            self._followers[key] = []
            return True
        if self._waiting >= self._limit:
            return True
        followers.append(item)
        self._waiting += 1
        return False

    def end(self, key: Hashable) -> list[Waiting]:
        """The one that ran is over: returns those that waited, to be looked up again, in order. Where it left
        nothing (it failed) the first of them runs next and the others wait for that one. Harmless when unknown."""
        followers = self._followers.pop(key, [])
        self._waiting -= len(followers)
        return followers

    def leave(self, key: Hashable, item: Waiting) -> bool:
        """Takes back one that waits (cancelled); tells whether it did wait."""
        followers = self._followers.get(key, [])
        if item not in followers:
            return False
        followers.remove(item)
        self._waiting -= 1
        return True
