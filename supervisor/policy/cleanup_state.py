"""What is known of clean-ups and of emergency protection. Data; `cleanup` and `protection` change it."""

from collections import deque
from typing import Literal

import msgspec

from protocol.messages import Cleanup, CleanupAction, CleanupTier
from supervisor.policy.levels import Level

Cause = Literal["level", "periodic", "work", "asked", "protection"]


class Running(msgspec.Struct, kw_only=True):
    """The clean-up in progress. `awaits`: (slot, incarnation) of workers that have not answered."""

    number: int
    tier: CleanupTier
    reason: str
    cause: Cause
    level: Level
    began: float
    at: float
    before_bytes: int
    awaits: set[tuple[int, int]]
    collecting: bool = False
    """Nothing but collections, as somebody asked."""
    own_awaited: bool = True
    answered_at: float | None = None
    actions: list[CleanupAction] = msgspec.field(default_factory=list)
    to: list[tuple[bytes, int | str]] = msgspec.field(default_factory=list)
    """Who asked, and waits for the report."""
    to_replace: set[tuple[int, int]] = msgspec.field(default_factory=set)


class Cleanups(msgspec.Struct, kw_only=True):
    """What is known of clean-ups: the one in progress, those before, when each tier ran."""

    history: deque[Cleanup]
    running: Running | None = None
    number: int = 0
    ran_at: dict[str, float] = msgspec.field(default_factory=dict)
    runs: dict[str, int] = msgspec.field(default_factory=dict)
    failed: CleanupTier | None = None
    """The last tier that a level called for and that did not help; None once it is calm."""
    last_at: float | None = None
    work_over_at: float | None = None


def make(history_count: int) -> Cleanups:
    """Returns an empty record."""
    return Cleanups(history=deque(maxlen=history_count))


class Protection(msgspec.Struct, kw_only=True):
    """Emergency protection: whether it is on, and how far it has gone."""

    enabled: bool = True
    attempts: int = 0
    """Emergency clean-ups begun since the level protection was last left for good."""
    attempt: int | None = None
    """The number of the clean-up that is the attempt in progress."""
    given_up: bool = False
    """Stopping would change nothing: told once, until the level is left."""
    stopping: bool = False
    stops: list[float] = []
    """When it stopped supervisors on this state directory before (seconds since the epoch), one after the other."""
