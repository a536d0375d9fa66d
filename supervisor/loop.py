"""The one loop, and the only place that blocks.

    while the pool runs:
        events = hands.wait(until=pool.next_deadline())
        for each event: for each command of pool.handle(event, now): hands.execute(command)

What it turns with is opened by `opening`, and closed in the reverse order, also when something failed half-way.
"""

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Mapping

from supervisor.config import Config, StartSummary
from supervisor.mechanism.hands import Hands
from supervisor.mechanism.memory import share_arenas
from supervisor.mechanism.notify import Notifier
from supervisor.mechanism.reconfigure import Reconfigurer
from supervisor.opening import open_all
from supervisor.policy.pool import Pool
from supervisor.policy.sizes import human

SWITCH_INTERVAL_SECONDS = 0.0005
"""Python's default of 5 ms lets the journal thread hold the loop up for 5 ms each time it computes."""

Announce = Callable[[StartSummary], None]


def run(config: Config, announce: Announce, flags: Mapping[str, str | None]) -> int:
    """Is a supervisor until it is asked to stop; returns the exit code. `flags` are those that `config` was read with:
    it is read with them again when the settings change. Raises a GalleryError whose sentence says what
    stands in the way when it cannot begin."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    share_arenas()
    notifier = Notifier()  # first: no child is to see the variables
    with contextlib.ExitStack() as closing:
        closing.callback(notifier.close)
        hands, pool, summary = open_all(Reconfigurer(config, flags), closing)
        announce(summary)
        notifier.ready(f"serving with {config.workers} workers and {human(summary.budget_bytes)}")
        gc.collect()
        gc.freeze()
        return turn(hands, pool, notifier)


def turn(hands: Hands, pool: Pool, notifier: Notifier) -> int:
    """The loop. It alone tells the service manager that it turns."""
    told = False
    while hands.stopped is None:
        if pool.draining and not told:
            notifier.stopping("draining: images in progress are finished, the rest is kept")
            told = True
        events = hands.wait(until=pool.next_deadline())
        now = time.monotonic()
        for event in events:
            for command in pool.handle(event, now):
                hands.execute(command)
        hands.turns.end()
        notifier.beat(now)
    return hands.stopped
