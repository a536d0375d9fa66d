"""Tasks that wait for memory: a brake on admission, and nothing else.

The kernel tells it in two ways. Its counters, read at every look, give the share of the last two seconds; its trigger,
where one can be had, wakes us once in two seconds for as long as the share is above the brake, also while the pool is
at rest. Either one brakes: leases are of one image and batch sizes do not grow. Neither ever ends a worker: both come
late, are averages, and speak of neighbours too.
"""

import math

import msgspec

from supervisor.policy.commands import Command, Note

HOLD_SECONDS = 2.5
"""The trigger's word counts so long: a little longer than it is silent while tasks wait."""
TELL_EVERY_SECONDS = 60.0


class Stall(msgspec.Struct):
    """What is known of it. `brake`: the share (0.0 to 1.0) above which admission is braked."""

    share: float | None = None
    """By the counters, at the last look; None: not told."""
    until: float | None = None
    """Until when the trigger's word counts; None: it has said nothing lately."""
    said_at: float = -math.inf

    def look(self, share: float | None, brake: float, now: float) -> list[Command]:
        """Takes in what the counters say."""
        self.share = share
        if self.until is not None and now >= self.until:
            self.until = None
        return self._say(brake, now) if self.brakes(brake) else []

    def brakes(self, brake: float) -> bool:
        """Tells whether no more is to be begun than one item a worker."""
        return self.until is not None or (self.share is not None and self.share > brake)

    def told(self, brake: float, now: float) -> list[Command]:
        """Takes in that the trigger fired."""
        self.until = now + HOLD_SECONDS
        return self._say(brake, now)

    def _say(self, brake: float, now: float) -> list[Command]:
        if now - self.said_at < TELL_EVERY_SECONDS:
            return []
        self.said_at = now
        message = f"tasks wait for memory more than {brake:.0%} of the time: leases are of one image until that is over"
        return [Note(kind="stalled", message=message, figures={"brake_share": brake})]
