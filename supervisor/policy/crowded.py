"""What is known of a budget that does not hold all workers. Data; `crowding` changes it."""

import msgspec


class Crowding(msgspec.Struct, kw_only=True):
    """Since when the budget has held fewer workers than serve, or more; what was told last."""

    fewer_since: float | None = None
    more_since: float | None = None
    more_not_before: float = 0.0
    """Until then none comes back, whatever room there seems to be."""
    told: int | None = None
    """How many workers it held when that was last told; None: all, and nothing was."""
