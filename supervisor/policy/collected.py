"""What a means of giving memory back gave, counted."""

import msgspec

USELESS_SHARE = 0.10
"""FEATURES M8: what gives back less than this part of what lies above the baseline is useless."""
RUNS_TO_JUDGE = 2
FADE = 0.5
"""What earlier runs count in the verdict, from run to run: one that gave much ten runs ago says little of the next."""


class Tally(msgspec.Struct):
    """Runs of one means in one worker."""

    runs: int = 0
    freed_bytes: int = 0
    held_bytes: int = 0
    recent_freed_bytes: float = 0.0
    recent_held_bytes: float = 0.0

    def add(self, freed_bytes: int, held_bytes: int) -> None:
        """Counts a run: what it gave back, and what was there above the baseline."""
        self.runs += 1
        self.freed_bytes += freed_bytes
        self.held_bytes += held_bytes
        self.recent_freed_bytes = FADE * self.recent_freed_bytes + freed_bytes
        self.recent_held_bytes = FADE * self.recent_held_bytes + held_bytes

    @property
    def useless(self) -> bool:
        """Whether it gave so little back that it is not worth doing."""
        return self.runs >= RUNS_TO_JUDGE and self.recent_freed_bytes < USELESS_SHARE * self.recent_held_bytes


class Collecting(msgspec.Struct, kw_only=True):
    """The tallies of one worker, by means."""

    incarnation: int
    means: dict[str, Tally] = {}
