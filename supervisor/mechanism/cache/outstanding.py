"""Look-ups that were asked for and not yet answered, so that a stalled disk never holds an item up.

The loop asks, the cache's thread answers. An item that waits too long is told as a miss by the loop's own side;
what the thread may still say of it is then dropped.
"""

import threading
from collections.abc import Sequence

import msgspec

from supervisor.policy.cache.asked import CacheHit, CacheMiss, LookedUp, LookUpItems


class Asked(msgspec.Struct):
    """A command, when it came (monotonic seconds), and the items of it that wait."""

    command: LookUpItems
    since: float
    waiting: set[int]


class Outstanding:
    """Thread safe. `items_max` is the most that may wait."""

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._lock = threading.Lock()
        self._asked: dict[int, Asked] = {}
        self._ticket = 0
        self._items = 0

    @property
    def items(self) -> int:
        """How many items wait."""
        return self._items

    def add(self, command: LookUpItems, now: float) -> int | None:
        """Returns a ticket for the command, None where too much waits already."""
        with self._lock:
            if self._items + len(command.items) > self._items_max:
                return None
            self._ticket += 1
            waiting = {wanted.id for wanted in command.items}
            self._asked[self._ticket] = Asked(command, now, waiting)
            self._items += len(waiting)
            return self._ticket

    def command(self, ticket: int) -> LookUpItems | None:
        """Returns the command, None where nobody waits for it any more."""
        with self._lock:
            asked = self._asked.get(ticket)
            return asked.command if asked is not None else None

    def answer(self, ticket: int, hits: Sequence[CacheHit], misses: Sequence[CacheMiss]) -> LookedUp | None:
        """Returns what is to be told of an answer: of the items that still wait; None where none does."""
        with self._lock:
            asked = self._asked.get(ticket)
            if asked is None:
                return None
            told_hits = [hit for hit in hits if hit.id in asked.waiting]
            told_misses = [miss for miss in misses if miss.id in asked.waiting]
            self._done(ticket, asked, {hit.id for hit in told_hits} | {miss.id for miss in told_misses})
            if not told_hits and not told_misses:
                return None
            return LookedUp(batch=asked.command.batch, hits=told_hits, misses=told_misses)

    def overdue(self, before: float) -> list[LookedUp]:
        """Returns, as misses, all items that wait since earlier; nobody waits for them any more."""
        with self._lock:
            late = [(ticket, asked) for ticket, asked in self._asked.items() if asked.since < before]
            told = []
            for ticket, asked in late:
                told.append(all_missed(asked.command, asked.waiting))
                self._done(ticket, asked, set(asked.waiting))
            return told

    def oldest(self) -> float | None:
        """Returns since when the longest waiting one waits, None where none does."""
        with self._lock:
            return min((asked.since for asked in self._asked.values()), default=None)

    def _done(self, ticket: int, asked: Asked, ids: set[int]) -> None:
        asked.waiting -= ids
        self._items -= len(ids)
        if not asked.waiting:
            del self._asked[ticket]


def all_missed(command: LookUpItems, ids: set[int]) -> LookedUp:
    """Returns the answer that nothing of these is in the cache; no two of them are called identical."""
    misses = [CacheMiss(wanted.id, "", wanted.path) for wanted in command.items if wanted.id in ids]
    return LookedUp(batch=command.batch, hits=[], misses=misses)


def missed(command: LookUpItems, only: int | None = None) -> list[CacheMiss]:
    """Returns the misses of an answer that nothing of it, or of the one item, is in the cache."""
    return all_missed(command, {wanted.id for wanted in command.items} if only is None else {only}).misses
