"""Memory leases: an operation asks before it takes a large piece of memory.

    with work.memory(120_000_000, at_least=20_000_000, purpose="inference") as lease:
        side = largest_side(lease.bytes)

An item was admitted with an allowance of its own: what it asks for is taken from there first, without a word to
anybody, and only the rest is asked of the supervisor. What must be had is `at_least`; where even that is not to be
had now, NoMemory is raised, and the item comes back later with a larger allowance.

A piece that lies within the allowance is told to the supervisor when it is large, so that it can be seen who holds
the memory; nobody waits for that.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from workers.errors import NoMemory

_USED_SHARE = 0.9
"""So much of an item's allowance is lent out: at its very end the worker would be recycled."""
EVERYTHING_BYTES = 1 << 46
"""More than anybody has: what a lender without a bound grants."""


class Refused(NamedTuple):
    """The answer no: why, and whether waiting cannot help."""

    reason: str
    for_ever: bool


class Lender(Protocol):
    """Who decides. In a worker that is the supervisor, at the other end of the socket (`workers.loop`)."""

    def ask(
        self, number: int, size_bytes: int, at_least: int, purpose: str, item: int, within_bytes: int = 0
    ) -> "int | Refused":
        """Returns the bytes granted, between `at_least` and `size_bytes`; waits for the answer, not for ever.
        `within_bytes` more are the item's own."""

    def note(self, number: int, size_bytes: int, purpose: str, item: int) -> None:
        """Tells of a piece within the item's allowance."""

    def release(self, number: int) -> None:
        """Gives a lease back."""

    def renew(self, numbers: list[int]) -> None:
        """Keeps leases from becoming stale."""

    def model_loaded(self, number: int, name: str, size_bytes: int, uses: int, within_bytes: int = 0) -> None:
        """Tells what a model was measured to take, or how often it was used. `within_bytes` of it were the item's."""

    def model_unloaded(self, number: int, name: str, freed_bytes: int, reason: str) -> None:
        """Tells that a model and its lease are gone."""


class Bounded:
    """A lender of so many bytes in this process: for tests of operations, and where there is no supervisor."""

    def __init__(self, limit_bytes: int = EVERYTHING_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.out: dict[int, int] = {}
        self.refused = 0

    def ask(
        self, number: int, size_bytes: int, at_least: int, purpose: str, item: int, within_bytes: int = 0
    ) -> int | Refused:
        """Grants what is left of the bound."""
        free = self.limit_bytes - sum(self.out.values())
        if at_least > free:
            self.refused += 1
            why = f"{purpose}: {at_least:,} bytes are asked for, {free:,} of {self.limit_bytes:,} are free"
            return Refused(why, at_least > self.limit_bytes)
        self.out[number] = min(size_bytes, free)
        return self.out[number]

    def note(self, number: int, size_bytes: int, purpose: str, item: int) -> None:
        """It lies within the item's own."""

    def release(self, number: int) -> None:
        """Gives a lease back."""
        self.out.pop(number, None)

    def renew(self, numbers: list[int]) -> None:
        """Nothing becomes stale here."""

    def model_loaded(self, number: int, name: str, size_bytes: int, uses: int, within_bytes: int = 0) -> None:
        """The lease becomes what was measured."""
        if number in self.out:
            self.out[number] = size_bytes

    def model_unloaded(self, number: int, name: str, freed_bytes: int, reason: str) -> None:
        """Its lease is gone."""
        self.out.pop(number, None)


class Lease:
    """Permission for `bytes`, of which `own_bytes` come from the item's allowance. `number` is None where nobody else
    knows of it."""

    def __init__(self, size_bytes: int, own_bytes: int, number: int | None, purpose: str) -> None:
        self.bytes, self.own_bytes, self.number, self.purpose = size_bytes, own_bytes, number, purpose


class Leases:
    """The memory leases of one worker."""

    def __init__(
        self,
        lender: Lender | None = None,
        *,
        from_bytes: int = 64 * 1024**2,
        renew_seconds: float = 150.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`from_bytes`: pieces within an item's allowance are told from that size on."""
        self.lender: Lender = lender if lender is not None else Bounded()
        self._from_bytes, self._renew_seconds, self._clock = from_bytes, renew_seconds, clock
        self._number = 0
        self._item = 0
        self._allowance = 0
        self._standing = 0
        self._held: dict[int, Lease] = {}
        self._passing: list[Lease] = []
        self._renewed_at = clock()
        self.asked = False
        """Whether the item in progress asked for memory: its peak is then no measure of its image."""

    # ---- the item --------------------------------------------------------------------------------

    def begin(self, item: int, allowance_bytes: int) -> None:
        """An item begins that may take so much beside its decoded picture."""
        self._item, self._allowance = item, max(0, int(allowance_bytes * _USED_SHARE) - self._standing)
        self.asked = False

    def holds_picture(self, size_bytes: int) -> None:
        """So much of the allowance is the decoded picture."""
        self._allowance = max(0, self._allowance - size_bytes)

    def end(self) -> None:
        """The item is over: what it forgot to give back is given back."""
        while self._passing:
            self._give_back(self._passing[-1])
        self._item, self._allowance = 0, 0

    def note(self, size_bytes: int, purpose: str) -> None:
        """Tells of a large piece that the item was admitted with, until the item ends."""
        if size_bytes >= self._from_bytes:
            lease = Lease(size_bytes, size_bytes, self._next(), purpose)
            self._remember(lease)
            self.lender.note(lease.number or 0, size_bytes, purpose, self._item)

    @contextlib.contextmanager
    def memory(self, size_bytes: int, *, at_least: int | None = None, purpose: str) -> Iterator[Lease]:
        """Gives a lease of `size_bytes`, or of less down to `at_least` (all when that is None), for the block.

        Raises NoMemory where that cannot be had now.
        """
        lease = self._take(size_bytes, size_bytes if at_least is None else min(at_least, size_bytes), purpose)
        try:
            yield lease
        finally:
            self._give_back(lease)

    def _take(self, size_bytes: int, least: int, purpose: str) -> Lease:
        self.asked = True
        own = min(size_bytes, self._allowance)
        lease = Lease(size_bytes, own, None, purpose)
        if own < size_bytes:
            number = self._next()
            answer = self.lender.ask(number, size_bytes - own, max(0, least - own), purpose, self._item, own)
            if isinstance(answer, Refused):
                if own < least:
                    raise NoMemory(answer.reason, least, for_ever=answer.for_ever)
                lease.bytes = own
            else:
                lease.bytes, lease.number = own + answer, number
        elif size_bytes >= self._from_bytes:
            lease.number = self._next()
            self.lender.note(lease.number, size_bytes, purpose, self._item)
        self._allowance -= own
        self._remember(lease)
        return lease

    def _remember(self, lease: Lease) -> None:
        self._passing.append(lease)
        if lease.number is not None:
            self._held[lease.number] = lease

    def _give_back(self, lease: Lease) -> None:
        if lease not in self._passing:
            return  # the item ended before the block did
        self._passing.remove(lease)
        self._allowance += lease.own_bytes
        if lease.number is not None and self._held.pop(lease.number, None) is not None:
            self.lender.release(lease.number)

    # ---- what outlives items ---------------------------------------------------------------------

    def borrow(self, size_bytes: int, purpose: str) -> Lease:
        """Returns a lease that lasts until `give_back`. What the item in progress was admitted with is used first: so
        much less is left for it and for those admitted with it. Raises NoMemory."""
        self.asked = True
        own = min(size_bytes, self._allowance)
        lease = Lease(size_bytes, own, self._next(), purpose)
        assert lease.number is not None
        if own < size_bytes:
            rest = size_bytes - own
            answer = self.lender.ask(lease.number, rest, rest, purpose, self._item, own)
            if isinstance(answer, Refused):
                raise NoMemory(answer.reason, size_bytes, for_ever=answer.for_ever)
        else:
            self.lender.note(lease.number, size_bytes, purpose, self._item)
        self._held[lease.number] = lease
        self._stand(own)
        return lease

    def measured(self, lease: Lease, size_bytes: int) -> int:
        """The lease is what its piece was measured to take; returns how much of that was the item's own."""
        self._stand(size_bytes - lease.bytes if lease.own_bytes else 0)
        own, lease.own_bytes, lease.bytes = min(lease.own_bytes, size_bytes), 0, size_bytes
        return own

    def give_back(self, lease: Lease) -> None:
        """Ends a borrowed lease; a second time is no fault."""
        if lease.number is not None and self._held.pop(lease.number, None) is not None:
            self._stand(-lease.own_bytes)
            self.lender.release(lease.number)

    def granted(self) -> None:
        """Further items were admitted, with figures that reckon with all that is borrowed."""
        self._standing = 0

    def renew_due(self, now: float) -> None:
        """Renews what is held, when it is time."""
        if self._held and now - self._renewed_at >= self._renew_seconds:
            self._renewed_at = now
            self.lender.renew(list(self._held))

    def _stand(self, size_bytes: int) -> None:
        self._standing = max(0, self._standing + size_bytes)
        self._allowance = max(0, self._allowance - size_bytes)

    def _next(self) -> int:
        if not self._held:
            self._renewed_at = self._clock()
        self._number += 1
        return self._number
