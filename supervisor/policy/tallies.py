"""Counts since the supervisor started, for those who draw curves of them: never reset, never going down.

A scrape sees a counter every fifteen seconds or so; what happened in between is in the difference. So everything here
only grows, under a bounded number of names: recipes come from the settings, but a batch of an earlier time may carry
one that is no longer there, hence a limit.
"""

from bisect import bisect_left

from protocol.messages import Durations, Recipe, RecipeTotals
from supervisor.policy.items import SettledState, Settlement

RECIPES_MOST = 100
"""Recipes counted by name; those beyond share one line."""
OTHERS = "(others)"
BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a cached probe to the default time limit of an image; each two to two and a half times the one before."""


class Tallies:
    """What has happened, counted by name."""

    def __init__(self) -> None:
        self.recycles: dict[str, int] = {}
        self.deaths: dict[str, int] = {}
        self._outcomes: dict[str, tuple[list[str], dict[str, int]]] = {}
        self._durations = [0] * (len(BOUNDS_SECONDS) + 1)
        self._sum_seconds = 0.0

    def settled(self, recipe: Recipe, settlement: Settlement) -> None:
        """Counts an image whose verdict is on the disk."""
        state, seconds = settlement.state, settlement.seconds
        outcomes = (self._outcomes.get(recipe.name) or self._begin(recipe))[1]  # for every image: no call to `outcome`
        outcomes[state] = outcomes.get(state, 0) + 1
        if settlement.slot is not None and (state == "done" or state == "failed"):
            place = 0 if seconds <= BOUNDS_SECONDS[0] else bisect_left(BOUNDS_SECONDS, seconds)
            self._durations[place] += 1
            self._sum_seconds += seconds

    def outcome(self, recipe: Recipe, state: SettledState, count: int) -> None:
        """Counts images of a recipe that came to be in a settled state."""
        known = self._outcomes.get(recipe.name)
        if known is None:
            known = self._begin(recipe)
        outcomes = known[1]
        outcomes[state] = outcomes.get(state, 0) + count

    def _begin(self, recipe: Recipe) -> tuple[list[str], dict[str, int]]:
        if len(self._outcomes) >= RECIPES_MOST:
            return self._outcomes.setdefault(OTHERS, ([], {}))
        return self._outcomes.setdefault(recipe.name, ([step.operation for step in recipe.steps], {}))

    def recycled(self, reason: str) -> None:
        """Counts a planned replacement of a worker."""
        self.recycles[reason] = self.recycles.get(reason, 0) + 1

    def died(self, cause: str) -> None:
        """Counts an end of a worker that was not planned."""
        self.deaths[cause] = self.deaths.get(cause, 0) + 1

    def by_recipe(self) -> list[RecipeTotals]:
        """Returns the outcomes, recipe by recipe."""
        return [
            RecipeTotals(recipe=name, operations=list(operations), outcomes=dict(outcomes))
            for name, (operations, outcomes) in self._outcomes.items()
        ]

    def durations(self) -> Durations:
        """Returns how long images took."""
        return Durations(
            bounds_seconds=list(BOUNDS_SECONDS), counts=list(self._durations), sum_seconds=round(self._sum_seconds, 6)
        )
