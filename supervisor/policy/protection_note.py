"""What emergency protection leaves to the next start: when it stopped, and how much smaller to begin.

Stops count as long as each followed the one before within `within_seconds`, and the last one is no older. Two of
them in a row: half the workers; each further one: half of that, at least one. A calm run clears the record: one that
needed no attempt when it ended after having worked, or that lasted `within_seconds`.
"""

from collections.abc import Sequence
from itertools import pairwise

from supervisor.policy.commands import Command, KeepProtection
from supervisor.policy.state import PoolState

CALM_SECONDS = 60.0
"""A run shorter than that, in which nothing was done, says nothing about its memory."""


def in_a_row(stops: Sequence[float], now: float, within_seconds: float) -> list[float]:
    """Returns the latest stops (since the epoch) that follow one another within the time, seen from `now`."""
    found: list[float] = []
    for later, earlier in pairwise([now, *reversed(stops)]):
        if not 0 <= later - earlier <= within_seconds:
            break
        found.insert(0, earlier)
    return found


def fewer_workers(workers: int, stops: Sequence[float]) -> int:
    """Returns with how many workers to begin after these stops in a row."""
    return max(1, workers >> max(0, len(stops) - 1))


def forget_after_calm(state: PoolState, now: float) -> list[Command]:
    """Clears the record when the run was calm."""
    protection, totals = state.protection, state.totals
    if not protection.stops or protection.stopping or protection.attempts:
        return []
    worked = totals["done"] + totals["cached"] + totals["failed"] > 0
    lasted = now - state.started_at
    if lasted < state.settings.cleanup.stops_within_seconds and not (
        state.draining and (worked or lasted >= CALM_SECONDS)
    ):
        return []
    protection.stops = []
    return [KeepProtection(stops=[])]
