"""One part of the supervisor that is a process of its own: its plan and what it has been through. Data; `parts`
changes it."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from supervisor.policy.restart import Restarts


class PartPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A part as configured. `limit_bytes`: the RSS at which it is replaced; None: the whole's level alone counts."""

    name: str
    essential: bool = False
    limit_bytes: int | None = None
    stop_seconds: float = 5.0
    """From TERM to KILL."""


class Part(msgspec.Struct, kw_only=True):
    """A part and what it has been through."""

    plan: PartPlan
    state: Literal["stopped", "starting", "running", "stopping", "held"] = "stopped"
    incarnation: int = 0
    pid: int | None = None
    rss_bytes: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    deadline: float | None = None
    held: bool = False
    """It is not to run, because of an emergency."""
    planned: bool = False
    """Its end was asked for."""
    restarts: int = 0
    restarting: Restarts = msgspec.field(default_factory=Restarts)
    note: str | None = None


def make(plans: Iterable[PartPlan]) -> dict[str, Part]:
    """Returns the parts of these plans by name; they start at the first event."""
    return {plan.name: Part(plan=plan) for plan in plans}
