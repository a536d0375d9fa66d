"""What a means of giving memory back gave, counted."""

import msgspec

USELESS_SHARE = 0.10
"""FEATURES M8: what gives back less than this part of what lies above the baseline is useless."""
RUNS_TO_JUDGE = 2


class Tally(msgspec.Struct):
    """Runs of one means in one worker."""

    runs: int = 0
    freed_bytes: int = 0
    held_bytes: int = 0

    @property
    def useless(self) -> bool:
        """Whether it gave so little back that it is not worth doing."""
        return self.runs >= RUNS_TO_JUDGE and self.freed_bytes < USELESS_SHARE * self.held_bytes


class Collecting(msgspec.Struct, kw_only=True):
    """The tallies of one worker, by means."""

    incarnation: int
    means: dict[str, Tally] = {}
