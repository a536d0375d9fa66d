"""The window's share of the cache, moved uphill by the hit rate (Einziger, Eytan, Friedman and Manes, 2018).

After each period the share takes a step. Was the hit rate better than in the period before, the next step goes
the same way, else back. Steps shrink, so that it comes to rest; a hit rate that changes much means another load,
and begins anew with a full step.
"""

START_SHARE = 0.01
LEAST_SHARE, GREATEST_SHARE = 0.01, 0.80
FIRST_STEP = 0.0625
STEP_DECAY = 0.9
LEAST_STEP = 0.004
RESTART_CHANGE = 0.05


class HillClimber:
    """Tells the window's share; `period` is the number of requests between two steps."""

    def __init__(self, period: int) -> None:
        self.share = START_SHARE
        self._period = max(1, period)
        self._step = FIRST_STEP
        self._requests = self._hits = 0
        self._rate_before: float | None = None

    def saw(self, *, hit: bool) -> None:
        """Takes a request into account."""
        self._requests += 1
        self._hits += hit
        if self._requests >= self._period:
            self._climb(self._hits / self._requests)
            self._requests = self._hits = 0

    def _climb(self, rate: float) -> None:
        before, self._rate_before = self._rate_before, rate
        if before is None:
            return
        change = rate - before
        if abs(change) >= RESTART_CHANGE:
            self._step = FIRST_STEP if self._step > 0 else -FIRST_STEP
        if change < 0:
            self._step = -self._step
        if abs(self._step) >= LEAST_STEP:
            self.share = min(GREATEST_SHARE, max(LEAST_SHARE, self.share + self._step))
            self._step *= STEP_DECAY
