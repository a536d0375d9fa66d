"""On what terms a benchmark is run: how often, how much, on which gallery."""

import msgspec


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """`gallery`: a directory of photos, None for galleries made by code; `scale` makes everything smaller: 1 is
    what is promised, a thousandth is a test of the benchmark itself."""

    runs: int = 5
    quick: bool = False
    gallery: str | None = None
    scale: float = 1.0

    def count(self, full: int, quick: int | None = None) -> int:
        """Returns how many to take of something."""
        return max(1, round((full if quick is None or not self.quick else quick) * self.scale))
