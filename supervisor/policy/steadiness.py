"""Growth that is steady, told from growth that is not; and the figures it is looked for in.

Memory saws: decoding goes up, freeing comes down, garbage is collected now and then. So the teeth are cut off first:
the figures are divided into blocks, and of each only the lowest counts. Through these goes a Theil–Sen line (the median
of the slopes of all pairs), which a few outliers do not bend.

Confidence answers "is it still growing, steadily": the chance that so many of the steps between blocks were upward by
luck (a sign test), less where the growth came in a few jumps (a library was loaded) or is dying down (a cache filled
up, allocators warmed up).
"""

import itertools
import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from protocol.messages import Leak

BLOCK = 3
FEWEST_BLOCKS, MOST_BLOCKS = 7, 12
"""With seven, six steps all upward are luck once in 64 times; with twelve a line costs 66 slopes, and a tooth of ten
figures fits into a block."""
SURE = 0.9
_EVEN = 0.8
_DYING = 0.5
KEPT_ROWS = 120
WINDOW = 240
_SAMPLES_OF_WORKER = 120


class Steady(NamedTuple):
    """A line through the lower envelope: units of y per unit of x, how sure it is that it goes on so, and how much
    it was over all blocks."""

    slope: float
    confidence: float
    grown: float


NOT_KNOWN = Steady(0.0, 0.0, 0.0)


def steady(points: Sequence[tuple[float, float]]) -> Steady:
    """Returns the trend of (x, y), ascending by x; NOT_KNOWN where they are too few."""
    blocks = min(MOST_BLOCKS, len(points) // BLOCK)
    if blocks < FEWEST_BLOCKS:
        return NOT_KNOWN
    size = len(points) / blocks
    low = [min(points[int(n * size) : int((n + 1) * size)], key=lambda point: point[1]) for n in range(blocks)]
    slope = median(
        (after[1] - before[1]) / (after[0] - before[0])
        for number, before in enumerate(low)
        for after in low[number + 1 :]
        if after[0] > before[0]
    )
    steps = [after[1] - before[1] for before, after in itertools.pairwise(low)]
    return Steady(slope, _confidence(steps), sum(steps))


def _confidence(steps: Sequence[float]) -> float:
    """How sure it is that these steps are a steady growth (or, all below 0, a steady shrinking)."""
    total = sum(steps)
    if not total:
        return 0.0
    along = sum(1 for step in steps if step * total > 0)
    count = len(steps)
    luck = sum(math.comb(count, hits) for hits in range(along, count + 1)) / float(2**count)
    mean = total / count
    even = median(steps) / mean
    last = sum(steps[-max(2, count // 3) :]) / max(2, count // 3)
    going_on = min(1.0, last / mean / _DYING)
    return (1.0 - luck) * max(0.0, min(1.0, even / _EVEN)) * max(0.0, going_on)


class TrendWatch:
    """The lowest total, and the lowest RSS of each worker, by the second: two minutes of them."""

    def __init__(self, slots: int) -> None:
        self.total: deque[tuple[float, float]] = deque(maxlen=KEPT_ROWS)
        self.workers: list[deque[tuple[float, float]]] = [deque(maxlen=KEPT_ROWS) for _ in range(slots)]
        self.incarnations = [0] * slots
        self.judge_at = 0.0
        self.warned_at: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many figures are kept."""
        return len(self.total) + sum(map(len, self.workers))


class Grown(msgspec.Struct, frozen=True):
    """What `items` items left behind in a worker, and what the steps of the first of them did. `blocks` is None where
    it is not known how many of them are reports that wait."""

    at: float
    items: int
    bytes: int
    held: int
    steps: tuple[int, ...]
    blocks: int | None = None
    step_blocks: tuple[int, ...] = ()
    models: tuple[tuple[str, ...], ...] = ()
    """What each part used, as `operations` of its recipe; empty where none used any."""


class RecipeWatch(msgspec.Struct, kw_only=True):
    """What items of one recipe left behind. `operations` begins with reading."""

    operations: tuple[str, ...]
    grown: deque[Grown] = msgspec.field(default_factory=lambda: deque(maxlen=WINDOW))
    samples: int = 0


class WorkerWatch(msgspec.Struct, kw_only=True):
    """One worker between two measured items, and its own figures over time: (date, items, RSS, blocks, kept free)."""

    incarnation: int
    items: int = 0
    since: int = 0
    recipe: str | None = None
    held: list[int] = []
    held_blocks: int = 0
    step_blocks: tuple[int, ...] = ()
    models: tuple[tuple[str, ...], ...] = ()
    figures: deque[tuple[float, int, int, int, int]] = msgspec.field(
        default_factory=lambda: deque(maxlen=_SAMPLES_OF_WORKER)
    )


class LeakWatch:
    """All of it, bounded."""

    def __init__(self) -> None:
        self.recipes: dict[str, RecipeWatch] = {}
        self.workers: dict[int, WorkerWatch] = {}
        self.found: dict[tuple[str, str, str], Leak] = {}
        """By kind of subject, subject and recipe."""
        self.items = 0

    @property
    def count(self) -> int:
        """How many samples are kept."""
        return sum(len(one.grown) for one in self.recipes.values()) + sum(
            len(one.figures) for one in self.workers.values()
        )
