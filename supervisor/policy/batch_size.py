"""How many items a lease of one worker may have.

As a TCP sender finds the width of its path, a worker's batch size finds the length of lease it can afford: it
doubles with each clean lease until the first sign of pressure, from then on grows by one a clean lease, is
halved on pressure and is one when things are critical. It also stops growing when a lease is about half a
second's work: longer ones gain nothing and lose more when a worker dies.

Near the end of the work leases taper, so that the workers finish together instead of all waiting for one.
"""

import math

import msgspec

_MEAN_WEIGHT = 0.2
"""Weight of the last lease in the moving mean of seconds per item: five leases make most of it."""
_KEPT_CHANGES = 20
_LEASES_A_WORKER_LEFT = 2
"""At the end a lease takes at most half of a worker's equal part of what is pending."""


class BatchChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change: the size from then on, and why."""

    size: int
    reason: str


class BatchSize(msgspec.Struct):
    """The batch size of one slot. It outlives the worker: what was learned holds for its successor.

    `shrinks` counts how often it was made smaller by pressure, the last time at `shrunk_at`. `history` are the last
    changes, the present size at the end.
    """

    max_size: int = 512
    target_lease_seconds: float = 0.5
    size: int = 1
    felt_pressure: bool = False
    seconds_per_item: float | None = None
    shrinks: int = 0
    shrunk_at: float | None = None
    history: list[BatchChange] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.history:
            self.history = [BatchChange(size=self.size, reason="start")]
        if self.max_size < 1:
            raise ValueError(f"max_size is {self.max_size}, must be at least 1")
        if not self.target_lease_seconds > 0:
            raise ValueError(f"target_lease_seconds is {self.target_lease_seconds}, must be above 0")

    @property
    def sizes(self) -> list[int]:
        """The last sizes, the present one at the end."""
        return [change.size for change in self.history]

    def bound(self, max_size: int, reason: str) -> None:
        """Changes the largest size allowed; a larger one shrinks to it."""
        self.max_size = max_size
        if self.size > max_size:
            self._set(max_size, reason)

    def clean(self, items: int, seconds: float) -> int:
        """A lease of `items` took `seconds` and met no pressure. Returns the new size.

        A lease shorter than the present size proves nothing about longer ones: it does not make it grow.
        """
        if items <= 0:
            return self.size
        each = max(0.0, seconds) / items
        known = self.seconds_per_item
        self.seconds_per_item = each if known is None else known + _MEAN_WEIGHT * (each - known)
        grown = self.size
        if items >= self.size:
            grown = self.size + 1 if self.felt_pressure else self.size * 2
        longest = self._longest()
        if longest < grown:
            reason = f"a lease may take {self.target_lease_seconds:g} s, an item takes {self.seconds_per_item:.3g} s"
            self._set(longest, reason if longest < self.max_size else "the largest allowed")
        else:
            self._set(grown, f"clean lease of {items}")
        return self.size

    def pressure(self, now: float, reason: str) -> bool:
        """Halve, at least one remains. Signs of pressure less than `target_lease_seconds` apart are one: a lease needs
        that long to end, and with it what it holds. Returns whether the size changed."""
        if self.shrunk_at is not None and 0 <= now - self.shrunk_at < self.target_lease_seconds:
            return False
        return self._shrink(self.size // 2, now, reason)

    def critical(self, now: float, reason: str) -> bool:
        """Down to one, at once. Returns whether the size changed."""
        return self._shrink(1, now, reason)

    def taper(self, pending: int, workers: int) -> int:
        """How many items to grant now, with `pending` left for `workers`: at least 1, at most the size."""
        part = math.ceil(max(0, pending) / (_LEASES_A_WORKER_LEFT * max(1, workers)))
        return max(1, min(self.size, part))

    def _longest(self) -> int:
        if not self.seconds_per_item:
            return self.max_size
        return max(1, min(self.max_size, int(self.target_lease_seconds / self.seconds_per_item)))

    def _shrink(self, size: int, now: float, reason: str) -> bool:
        self.felt_pressure = True
        size = max(1, size)
        if size >= self.size:
            return False
        self._set(size, reason)
        self.shrinks += 1
        self.shrunk_at = now
        return True

    def _set(self, size: int, reason: str) -> None:
        if size != self.size:
            self.size = size
            self.history = [*self.history[1 - _KEPT_CHANGES :], BatchChange(size=size, reason=reason)]
