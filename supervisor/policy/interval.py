"""How often to look.

The closer to the edge and the faster somebody grows, the more often (earlyoom's rule): look twice in the
time in which the headroom could fill. The growth reckoned with is never less than 1 GB/s: what a worker did
in the last second says little about what its next image does.

A softer limit (soft, recycle) is no edge, but passing it is to be seen soon as well: the next look comes no later than
it could be passed, and close to it every few milliseconds. A worker that is far from all of its limits is not looked
at more often for them.
"""

import msgspec

from supervisor.policy.watch_settings import WatchSettings

_LOOKS_WHILE_IT_FILLS = 2
_BREACH_SECONDS = 0.015
"""A limit may be passed so long before it is seen: with the decision itself that is within 25 ms."""
_REST_OF_STALE = 0.8
_HALF_LIFE_SECONDS = 1.0
"""A burst of growth is reckoned with for some seconds: a worker that did it once does it again."""


def interval_seconds(
    headroom_bytes: int,
    fastest_growth_bytes_per_second: float,
    all_idle: bool,
    settings: WatchSettings,
    to_limit_bytes: int | None = None,
) -> float:
    """Seconds until the next look. `headroom_bytes`: the smaller of what is left of the budget and what the worker
    nearest to its hard limit has left. `all_idle`: no worker holds a lease or is starting. `to_limit_bytes`: what the
    worker nearest to its soft or recycle limit may still take before it passes it; None: nobody is below one."""
    if all_idle:
        return _rest_seconds(headroom_bytes, settings)
    growth = max(fastest_growth_bytes_per_second, settings.growth_floor_bytes_per_second)
    fills_in = max(0, headroom_bytes) / (_LOOKS_WHILE_IT_FILLS * growth)
    if to_limit_bytes is not None:
        fills_in = min(fills_in, max(to_limit_bytes / growth, _BREACH_SECONDS))
    return min(max(fills_in, settings.interval_min_seconds), settings.interval_max_seconds)


def _rest_seconds(headroom_bytes: int, settings: WatchSettings) -> float:
    """Nobody of ours grows now; what is free is filled by neighbours, or by work that comes (its first look follows
    the grant)."""
    fills_in = max(0, headroom_bytes) / (_LOOKS_WHILE_IT_FILLS * settings.growth_floor_bytes_per_second)
    slowest = min(settings.interval_rest_seconds, _REST_OF_STALE * settings.stale_after_seconds)
    return max(settings.interval_idle_seconds, min(fills_in, slowest))


class Growth(msgspec.Struct):
    """How fast one worker grows: from its last two samples, or an earlier burst that has not faded yet."""

    bytes_per_second: float = 0.0
    last_bytes: int | None = None
    last_at: float = 0.0

    def note(self, rss_bytes: int, now: float) -> float:
        """Take in a sample and return the growth, never negative. A sample of the same instant, or of a clock that
        went back, replaces the last one and tells nothing of growth."""
        passed = now - self.last_at
        if self.last_bytes is not None and passed > 0:
            faded = self.bytes_per_second * 0.5 ** (passed / _HALF_LIFE_SECONDS)
            self.bytes_per_second = max(0.0, faded, (rss_bytes - self.last_bytes) / passed)
        self.last_bytes = rss_bytes
        self.last_at = now
        return self.bytes_per_second

    def forget(self) -> None:
        """The worker is gone; its successor starts without a past."""
        self.bytes_per_second, self.last_bytes, self.last_at = 0.0, None, 0.0
