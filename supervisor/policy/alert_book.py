"""What was alerted about, and when. Data; `alerts` changes it."""

from collections import deque

import msgspec


class Alerts(msgspec.Struct, kw_only=True):
    """What was told when. `told`: (kind, subject) to the time, longest ago first; `recent` the times of the last hour;
    `held` how many of a key were held back since."""

    told: dict[tuple[str, str], float] = msgspec.field(default_factory=dict)
    held: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)
    recent: deque[float] = msgspec.field(default_factory=deque)
    beyond_rate: int = 0
