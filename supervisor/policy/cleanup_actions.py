"""What clean-ups consist of: each action with its owner, the lowest tier it belongs to, its turn and its time limit.

A tier runs its own actions and those of the tiers below it, whoever owns them, in the order of their priorities.
"""

from typing import Literal

import msgspec

from protocol.messages import TIERS, CleanupAction, CleanupTier
from supervisor.policy.cleanup_state import Running


class Action(msgspec.Struct, frozen=True):
    """One registered action: the lowest tier it belongs to, its turn (lowest first), what it may take."""

    name: str
    owner: Literal["supervisor", "workers", "pool"]
    tier: CleanupTier
    priority: int
    limit_seconds: float


ACTIONS = (
    Action("expired cache entries", "supervisor", "gentle", 10, 1.0),
    Action("cache memory level", "supervisor", "gentle", 20, 1.0),
    Action("journal memory", "supervisor", "gentle", 30, 1.0),
    Action("gc", "supervisor", "gentle", 80, 1.0),
    Action("malloc_trim", "supervisor", "gentle", 90, 1.0),
    Action("trim workers", "workers", "gentle", 40, 5.0),
    Action("thin histories", "pool", "moderate", 50, 0.1),
    Action("halve batches", "pool", "moderate", 51, 0.1),
    Action("replace workers", "pool", "aggressive", 60, 60.0),
    Action("stop parts", "pool", "emergency", 70, 5.0),
    Action("kill the fattest", "pool", "emergency", 71, 5.0),
)
"""What clean-ups consist of. Beside them, as long as the level lasts: one lease at a time from critical on, new work
refused from emergency on (`lending`, `intake`)."""


def actions_of(tier: CleanupTier) -> list[Action]:
    """Returns the actions of a tier and of those below it, in their order."""
    due = [action for action in ACTIONS if TIERS.index(action.tier) <= TIERS.index(tier)]
    return sorted(due, key=lambda action: action.priority)


def note_action(running: Running, name: str, freed_bytes: int, owner: str = "pool", error: str | None = None) -> None:
    """Writes down what an action gave back."""
    running.actions.append(CleanupAction(name=name, owner=owner, freed_bytes=freed_bytes, seconds=0.0, error=error))
