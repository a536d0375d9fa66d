"""The window's share of the cache, moved uphill by the hit rate (Einziger, Eytan, Friedman and Manes, 2018).

After each period the share takes a step. Was the hit rate better than in the period before, the next step goes
the same way, else back. Steps shrink, so that it comes to rest; a hit rate that changes much means another load,
and begins anew with a full step.

A climber sees no further than its step, and some loads have a cliff: images asked for five times in a row are all
found or none, as the window holds them or not. So once at rest it looks at the other end now and then: for two
periods (the first to settle), each time later than before. Where it is better there, it stays.
"""

START_SHARE = 0.01
LEAST_SHARE, GREATEST_SHARE = 0.01, 0.80
FIRST_STEP = 0.0625
STEP_DECAY = 0.9
LEAST_STEP = 0.004
RESTART_CHANGE = 0.05
FIRST_LOOK_PERIODS, LAST_LOOK_PERIODS = 8, 256
LOOK_GAIN = 0.02
"""Hit rate that the other end must be better by: less is noise."""


class HillClimber:
    """Tells the window's share; `period` is the number of requests between two steps."""

    def __init__(self, period: int) -> None:
        self.share = START_SHARE
        self._period = max(1, period)
        self._step = FIRST_STEP
        self._requests = self._hits = 0
        self._rate_before: float | None = None
        self._at_rest, self._look_after = 0, FIRST_LOOK_PERIODS
        self._left: tuple[float, float] | None = None
        """The share and rate that were left for a look; None: none is under way."""
        self._settled = False

    def saw(self, *, hit: bool) -> None:
        """Takes a request into account."""
        self._requests += 1
        self._hits += hit
        if self._requests >= self._period:
            rate = self._hits / self._requests
            self._requests = self._hits = 0
            if self._left is not None:
                self._look_around(rate, *self._left)
            else:
                self._climb(rate)

    def _climb(self, rate: float) -> None:
        before, self._rate_before = self._rate_before, rate
        if before is None:
            return
        change = rate - before
        if abs(change) >= RESTART_CHANGE:
            self._step = FIRST_STEP if self._step > 0 else -FIRST_STEP
            self._at_rest, self._look_after = 0, FIRST_LOOK_PERIODS
        if change < 0:
            self._step = -self._step
        if abs(self._step) >= LEAST_STEP:
            self.share = min(GREATEST_SHARE, max(LEAST_SHARE, self.share + self._step))
            self._step *= STEP_DECAY
            return
        self._at_rest += 1
        if self._at_rest >= self._look_after:
            self._left, self._settled = (self.share, rate), False
            self.share = GREATEST_SHARE if self.share < GREATEST_SHARE / 2 else LEAST_SHARE

    def _look_around(self, rate: float, share: float, rate_there: float) -> None:
        if not self._settled:
            self._settled = True
            return
        if rate < rate_there + LOOK_GAIN:
            self.share = share
            self._look_after = min(LAST_LOOK_PERIODS, 2 * self._look_after)
        else:
            self._step = -FIRST_STEP if self.share == GREATEST_SHARE else FIRST_STEP
        self._left, self._at_rest, self._rate_before = None, 0, None
