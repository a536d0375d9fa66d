"""The models of a worker: loaded at their first use under a memory lease, unloaded when memory is short or nobody
uses them.

A model's lease is what it is expected to take while it loads, and what loading it was measured to take (resident size
before and after) from then on. Where there is no room for a second model beside the first, the first one goes: one
model at a time, with its memory given back in between. Where there is none at all the item is tried again later; what
can never be had is the item's verdict, with the figures.
"""

import gc
import time
from collections.abc import Callable
from typing import Any, TypeVar

from protocol.messages import CleanupTier
from workers import pressure
from workers.errors import NoMemory, NoMemoryNow, Verdict
from workers.memory import OwnMemory, give_back_at_once
from workers.memory_lease import Lease, Leases

T = TypeVar("T")

MODERATE_IDLE_SECONDS = 30.0
"""At moderate pressure a model goes that was not used for so long: another batch is at work."""
MAPPED_FROM_BYTES = 128 * 1024
"""While a model is loaded, blocks go back to the system from this size on. An inference takes and frees blocks of up to
2 MB in no order. Kept in the heap, as suits small photos, its holes are held beside the next one: two workers of OCR
under 512 MB took 410 MB at the peak instead of 340 and were killed at their hard limits, as measured."""
TELL_SECONDS = 1.0
"""How often a model is used is told at most so often."""


class _Model:
    def __init__(self, content: Any, lease: Lease, size_bytes: int, now: float) -> None:
        self.content, self.lease, self.bytes = content, lease, size_bytes
        self.used_at = now
        self.uses = 1
        self.told = 1


class Models:
    """What one worker has loaded, by name."""

    def __init__(
        self,
        leases: Leases,
        memory: OwnMemory | None = None,
        *,
        idle_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases, self._idle_seconds, self._clock = leases, idle_seconds, clock
        self._memory = memory if memory is not None else OwnMemory()
        self._models: dict[str, _Model] = {}
        self._in_use: set[str] = set()
        self._used: list[str] = []
        self._told_at = 0.0
        self._subscription: pressure.Subscription | None = None

    @property
    def names(self) -> list[str]:
        """What is loaded."""
        return list(self._models)

    def use(self, name: str, load: Callable[[], T], expected_bytes: int) -> T:
        """Returns the model of that name, which `load` makes when it is not there.

        `expected_bytes` is what loading it may take. Raises NoMemoryNow where there is no room now, Verdict where
        there never is, and what `load` raises.
        """
        self._in_use.add(name)
        if name not in self._used:
            self._used.append(name)
        model = self._models.get(name)
        if model is not None:
            model.used_at = self._clock()
            model.uses += 1
            found: T = model.content
            return found
        lease = self._room_for(name, expected_bytes)
        give_back_at_once(MAPPED_FROM_BYTES)
        self._memory.trim_malloc()  # what others left is not counted against it when it comes back meanwhile
        before = self._memory.rss_bytes()
        try:
            content = load()
        except BaseException:
            self._leases.give_back(lease)
            self._without_models()
            raise
        self._memory.trim_malloc()
        size = max(0, self._memory.rss_bytes() - before) or expected_bytes
        own = self._leases.measured(lease, size)
        self._models[name] = _Model(content, lease, size, self._clock())
        self._leases.lender.model_loaded(lease.number or 0, name, size, 1, own)
        if self._subscription is None:
            self._subscription = pressure.subscribe(
                self._under_pressure, name="unload models", tier="moderate", owner="models"
            )
        return content

    def unload(self, name: str, reason: str) -> None:
        """Lets a model go; one that is not there is no fault."""
        model = self._models.pop(name, None)
        if model is None:
            return
        lease, before = model.lease, self._memory.rss_bytes()
        del model
        self._without_models()
        gc.collect()
        self._memory.trim_malloc()
        freed = max(0, before - self._memory.rss_bytes())
        self._leases.lender.model_unloaded(lease.number or 0, name, freed, reason)
        self._leases.give_back(lease)

    def close(self) -> None:
        """Lets every model go."""
        for name in self.names:
            self.unload(name, "closed")
        if self._subscription is not None:
            self._subscription.unsubscribe()
            self._subscription = None

    def used(self) -> tuple[str, ...]:
        """Returns the names of what was used since it was last asked: by one step, when asked after each.

        The empty tuple is one and the same, so that a step which used none leaves none of Python's blocks behind.
        """
        used = tuple(self._used)
        self._used.clear()
        return used

    def item_over(self) -> None:
        """An item ended: what it used was in use until now, however long it took."""
        now = self._clock()
        for name in self._in_use:
            if name in self._models:
                self._models[name].used_at = now
        self._in_use.clear()

    def upkeep(self, now: float) -> None:
        """Between items: unloads what nobody used for long, tells how often the others were."""
        self._unload_unused(now - self._idle_seconds, f"not used for {self._idle_seconds:g} s")
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            for name, model in self._models.items():
                if model.uses != model.told:
                    model.told = model.uses
                    self._leases.lender.model_loaded(model.lease.number or 0, name, model.bytes, model.uses)

    def _room_for(self, name: str, expected_bytes: int) -> Lease:
        purpose = f"model {name}"[:100]
        try:
            try:
                return self._leases.borrow(expected_bytes, purpose)
            except NoMemory:
                if not self._models:
                    raise
                for other in self.names:
                    self.unload(other, f"makes room for {name}")
                return self._leases.borrow(expected_bytes, purpose)
        except NoMemory as no:
            if no.for_ever:
                raise Verdict("too_large", f"{no}; raise --memory, or --leases-pool-bytes") from no
            raise NoMemoryNow(f"the model {name} cannot be loaded now: {no}") from no

    def _without_models(self) -> None:
        """With the last model goes what suits models alone: small photos would take longer."""
        if not self._models:
            give_back_at_once()

    def _unload_unused(self, since: float, reason: str) -> None:
        for name in [name for name, model in self._models.items() if model.used_at <= since]:
            self.unload(name, reason)

    def _under_pressure(self, tier: CleanupTier) -> None:
        if tier == "moderate":
            self._unload_unused(self._clock() - MODERATE_IDLE_SECONDS, "memory is short, and it is idle")
        elif tier != "gentle":
            for name in self.names:
                self.unload(name, f"memory is short ({tier})")
