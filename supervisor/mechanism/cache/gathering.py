"""What was made, gathered until it is worth a commit: one for every image costs several times what its blobs do.

What a death takes of a group is made again where it is asked for.
"""

from collections import deque
from math import inf

from supervisor.policy.cache.asked import Made, StoreItems

STORES_MAX = 10_000
GATHER_ITEMS = 64
GATHER_SECONDS = 1.0


class Gathering:
    """Waits to be kept, oldest first; `now` is monotonic. Whoever shares it holds a lock."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[StoreItems, Made]] = deque()
        self.limit = STORES_MAX
        self._gather_seconds = GATHER_SECONDS
        self.due_at = inf
        """When keeping is to begin; it goes on until nothing waits."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, command: StoreItems, now: float) -> list[int]:
        """Takes the items; returns the ids of those there was no room for."""
        if not self._waiting:
            self.due_at = now + self._gather_seconds
        room = self.limit - len(self._waiting)
        self._waiting.extend((command, made) for made in command.items[:room])
        if not command.more_to_come or len(self._waiting) >= GATHER_ITEMS:
            self.due_at = min(self.due_at, now)
        return [made.id for made in command.items[room:]]

    def due(self, now: float) -> bool:
        """Whether what waits is to be kept now."""
        return self.due_at <= now

    def hurry(self) -> None:
        """Has nothing gathered any more."""
        self._gather_seconds = 0.0
        if self._waiting:
            self.due_at = 0.0

    def take(self) -> tuple[StoreItems, Made]:
        """Removes and returns the oldest. Raises IndexError where nothing waits."""
        oldest = self._waiting.popleft()
        if not self._waiting:
            self.due_at = inf
        return oldest
