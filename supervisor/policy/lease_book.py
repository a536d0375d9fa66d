"""Which memory leases are out: data, and the sums that everybody who reckons with memory needs.

A lease takes from the pool what it was granted. What lies within something that is reserved already takes nothing:
within what its item was admitted with (a large decode), or within its worker's warm baseline (a model that was loaded
before the baseline was measured). It is kept to be seen.
"""

import msgspec

from protocol.messages import RequestMemory
from supervisor.policy.sizes import MB

CLIENT = -1
"""The slot of a lease that a client holds."""
MOST_OF_A_HOLDER = 256
"""Leases that one worker, or all clients together, may hold."""


class LeaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the memory leases and of the models held under them; sizes in bytes, durations in seconds."""

    pool_bytes: int | None = None
    """What all memory leases together may take; None: `pool_share` of the budget, 50 MB at least."""
    pool_share: float = 0.6
    """Enough for OCR by two workers under 512 MB, as measured: two models of 115 MB, two inferences of 40 to 80 MB."""
    from_bytes: int = 64 * MB
    """A decode that is predicted to take so much holds a lease, so that it can be seen who holds the memory."""
    stale_seconds: float = 600.0
    """A lease that was not renewed for so long is taken back: its holder hangs, or forgot it."""
    answer_seconds: float = 5.0
    """How long an operation waits for the answer. The loop's turn takes milliseconds; then it is taken for a no."""
    patience_seconds: float = 10.0
    """How long a request for more than there is waits for what other inferences hold. Looking for the lines of a page
    takes 1 s, as measured; the rest is for a loaded machine."""
    refused_seconds: float = 600.0
    """Where a model is refused, its items are tried again for so long; then they fail, with the figures."""
    model_idle_seconds: float = 300.0
    """A model not used for so long is unloaded."""

    def check(self) -> list[str]:
        """All faults, a sentence each; empty: the settings are sound."""
        faults = []
        if self.pool_bytes is not None and self.pool_bytes < 0:
            faults.append(f"pool_bytes is {self.pool_bytes}, must not be negative, or not set")
        if not 0 < self.pool_share <= 1:
            faults.append(f"pool_share is {self.pool_share}, must be above 0 and at most 1")
        for name in ("from_bytes", "stale_seconds", "answer_seconds", "refused_seconds", "model_idle_seconds"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}, must be above 0")
        if self.patience_seconds < 0:
            faults.append(f"patience_seconds is {self.patience_seconds}, must not be negative")
        if self.stale_seconds < 4 * self.answer_seconds:
            faults.append(
                f"stale_seconds is {self.stale_seconds:g}, must be at least four times answer_seconds, which is"
                f" {self.answer_seconds:g}: holders renew their leases at a quarter of it"
            )
        return faults


class HeldLease(msgspec.Struct, kw_only=True):
    """One memory lease. `number` is the book's own, `request` the worker's. Times are on the loop's clock."""

    number: int
    slot: int
    incarnation: int
    request: int
    purpose: str
    bytes: int
    granted_at: float
    renewed_at: float
    path: str | None = None
    within_bytes: int = 0
    """So much of it lies within what its item was admitted with."""
    in_baseline: bool = False
    """It lies within its worker's baseline."""
    tracked: bool = False
    """A client's memory that was in use before it was told."""

    @property
    def reserved_bytes(self) -> int:
        """What it takes from the pool."""
        return 0 if self.in_baseline else self.bytes - self.within_bytes


class HeldModel(msgspec.Struct, kw_only=True):
    """A model in a worker; `bytes` were measured. Times are on the loop's clock."""

    slot: int
    incarnation: int
    request: int
    name: str
    bytes: int
    loaded_at: float
    used_at: float
    uses: int = 0
    early: bool = False
    """It was loaded before the first figure that its worker's baseline is taken from."""
    in_baseline: bool = False
    """Its worker's baseline, as measured, contains it."""


class WaitingRequest(msgspec.Struct, kw_only=True):
    """A request that waits for what others are about to give back, until `until` on the loop's clock."""

    slot: int
    incarnation: int
    asked: RequestMemory
    until: float


class LeaseBook(msgspec.Struct, kw_only=True):
    """The leases and models there are, and what was granted and refused so far."""

    held: dict[int, HeldLease] = {}
    models: dict[tuple[int, str], HeldModel] = {}
    waiting: list[WaitingRequest] = []
    """First come, first served; one a worker at most."""
    number: int = 0
    granted_total: int = 0
    refused_total: int = 0
    expired_total: int = 0
    last_refusal: str | None = None
    noted_at: float = -1e9
    """When a refusal was told last."""

    def reserved_bytes(self, slot: int | None = None) -> int:
        """Returns what is taken from the pool by all, or by the holder in a slot."""
        return sum(lease.reserved_bytes for lease in self.held.values() if slot is None or lease.slot == slot)

    def passing_bytes(self, but: int) -> int:
        """Returns what workers, but the one in that slot, have for an inference or the like: it comes back soon."""
        lasting = {(model.slot, model.request) for model in self.models.values()}
        return sum(
            lease.reserved_bytes
            for lease in self.held.values()
            if lease.slot not in (but, CLIENT) and (lease.slot, lease.request) not in lasting
        )

    def of(self, slot: int, incarnation: int, request: int) -> HeldLease | None:
        """Returns the lease that a worker numbered so."""
        for lease in self.held.values():
            if (lease.slot, lease.incarnation, lease.request) == (slot, incarnation, request):
                return lease
        return None
