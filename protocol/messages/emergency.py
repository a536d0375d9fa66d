"""Clean-ups by hand, and emergency protection: the requests of `emergency`, and what they tell.

A clean-up has a tier, and each tier does more than the one below it:

    gentle       what costs nobody anything: entries past their time, garbage, freed memory
    moderate     caches are shrunk, histories thinned, workers trim, batches are halved
    aggressive   models are unloaded, idle caches emptied, workers drained and replaced, one lease at a time
    emergency    non-essential parts are stopped, the fattest worker is killed, new work is refused
"""

from typing import Literal

from protocol.messages.answers import Answer
from protocol.messages.base import CleanupTier, Part
from protocol.messages.memory import Cleanup
from protocol.messages.requests import Request


class EmergencyCleanup(Request, frozen=True, kw_only=True):
    """Clean up now, at this tier, whatever the cooldown. Answer: `CleanupReport`, when it was verified."""

    tier: CleanupTier = "moderate"


class EmergencyCollect(Request, frozen=True, kw_only=True):
    """Collect garbage in the supervisor and in every worker, so many times. Answer: `CleanupReport`."""

    cycles: int = 1


class EmergencyStatusRequest(Request, frozen=True, kw_only=True):
    """The state of clean-ups, parts and protection. Answer: `EmergencyStatus`."""


class EmergencyReset(Request, frozen=True, kw_only=True):
    """Forget attempts, cooldowns and the note of earlier stops by protection. Answer: `EmergencyStatus`."""


class EmergencyProtection(Request, frozen=True, kw_only=True):
    """Turn emergency protection on or off until the supervisor ends. Answer: `EmergencyStatus`."""

    enabled: bool


class CleanupReport(Answer, frozen=True, kw_only=True):
    """One clean-up with what each action gave back."""

    cleanup: Cleanup


class TierState(Part, frozen=True, kw_only=True):
    """One tier: how often it ran, when last (None: never), and until when it rests."""

    tier: CleanupTier
    actions: list[str]
    runs: int
    last_at: float | None = None
    cooldown_seconds: float
    rests_seconds: float = 0.0
    """How long it will not run by itself again; 0: it is ready."""


class PartState(Part, frozen=True, kw_only=True):
    """One part of the supervisor that is a process of its own."""

    name: str
    essential: bool
    state: Literal["stopped", "starting", "running", "stopping", "held"]
    """held: stopped until the emergency is over."""
    pid: int | None = None
    rss_bytes: int = 0
    limit_bytes: int | None = None
    restarts: int = 0
    note: str | None = None


class ProtectionState(Part, frozen=True, kw_only=True):
    """Emergency protection. `stops` are the times (seconds since the epoch) that it stopped a supervisor on this
    state directory, one after the other; `workers_configured` is what there would be but for them."""

    enabled: bool
    attempts: int
    attempts_max: int
    stopping: bool = False
    stops: list[float] = []
    workers: int = 0
    workers_configured: int = 0


class EmergencyStatus(Answer, frozen=True, kw_only=True):
    """What `emergency status` shows."""

    level: str
    pressure: float
    used_bytes: int
    budget_bytes: int
    tiers: list[TierState]
    cleanups: list[Cleanup]
    """The latest ones, oldest first."""
    parts: list[PartState]
    protection: ProtectionState
