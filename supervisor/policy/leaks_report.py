"""The answer to `leaks`: what grows, where that leads, and what giving memory back has given."""

from protocol.messages import LeaksReport
from supervisor.policy.collecting import collections
from supervisor.policy.leaks import leaks
from supervisor.policy.state import PoolState
from supervisor.policy.trend import trends


def report(state: PoolState, request_id: int | str, now: float) -> LeaksReport:
    """Returns all three."""
    return LeaksReport(
        id=request_id,
        leaks=leaks(state),
        trends=trends(state, now),
        collection=collections(state),
        items_watched=state.leaks.items,
    )
