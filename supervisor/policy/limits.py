"""How much one worker may hold.

The budget is divided by design, so that nobody has to be killed for the sum: what is left of it after our
own processes, the warm baselines of all workers and a piece that is always kept free is shared equally, and
a worker's hard limit is its baseline plus its share. Then, however the workers behave, all of them at their
hard limits fit.

Below the hard limit lie two softer ones, at 70 % and 50 % of the share:

    baseline ........ soft ........ recycle ........ hard
              calm        trim,           replaced          SIGKILL
                          shrink          after the item

The proportions are those of the defaults of 50 and 70 MB above the baseline at a share of 100 MB; from there up
they scale with the budget, from there down 50 and 70 MB are kept as long as they fit below the hard limit.

Baseline is RSS of the warm worker, measured, never a peak and never the parent's. RSS also is the trigger:
it is what a look from outside gives in a microsecond. Pages shared with the template are in every worker's RSS
but exist once; so sums use private parts (RSS minus the measured shared part), and the template's whole RSS is
in `own_bytes`.
"""

from collections.abc import Sequence

import msgspec

from supervisor.policy.sizes import human
from supervisor.policy.watch_settings import WatchSettings

_RECYCLE_SHARE = 0.70
_SOFT_SHARE = 0.50
_HIGHEST_RECYCLE_SHARE = 0.90
"""Recycling stays this far below killing: room for the item in progress to end."""
_HIGHEST_SOFT_OF_RECYCLE = 0.75
_RESERVED_RECYCLE_SHARE = 0.95
_RESERVED_SOFT_OF_RECYCLE = 0.95
"""An item that runs alone is expected to come near its limits: shrinking and recycling would not help it."""
_PREDICTION_SLACK = 1.25
"""Predictions of an item's peak are upper quantiles, not promises."""
_KEEP_FREE_OF_ROOM = 4
"""At most a quarter of the room is kept free, so that a small budget leaves something to work with."""
MAX_REMEMBERED = 1024
_DEATHS_FOR_A_GUESS = 2
_ROOMY_WORKER_BYTES = 64_000_000
"""Of the budget for each worker, our own processes' 75 MB included: with so much nothing has to be measured first."""
_WIDEST = 100.0
"""Beyond, soft and recycle have long reached the hard limit."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one worker's RSS, in bytes: baseline < soft < recycle < hard, always.

    `fits` is False where the budget is too small for so many workers: the limits are then the smallest a worker
    can live with, and their sum is above the budget; fewer workers would fit (`workers_that_fit`). `widest`: the
    recycle limit is as near to the hard one as it may come, widening it moves nothing.
    """

    baseline_bytes: int
    soft_bytes: int
    recycle_bytes: int
    hard_bytes: int
    fits: bool
    widest: bool

    @property
    def item_bytes(self) -> int:
        """What one item may take above the baseline without the worker being recycled for it."""
        return self.recycle_bytes - self.baseline_bytes

    def __str__(self) -> str:
        return (
            f"baseline {human(self.baseline_bytes)}, soft {human(self.soft_bytes)},"
            f" recycle {human(self.recycle_bytes)}, hard {human(self.hard_bytes)}"
        )


def worker_limits(
    baseline_bytes: int,
    budget_bytes: int,
    own_bytes: int,
    baselines_of_all: Sequence[int],
    workers: int,
    settings: WatchSettings,
    reserved_bytes: int = 0,
    widening: float = 1.0,
) -> Limits:
    """Limits of a worker whose warm RSS is `baseline_bytes`.

    `own_bytes`: supervisor, template (with all its pages) and whatever else counts against the budget, such as
    strangers in our control group. `baselines_of_all`: the private part of each worker's baseline; workers
    beyond its length (still starting) are taken for average ones. `reserved_bytes`: what an item that runs while
    the others are drained may take above the baseline; its limits are raised up to all that the others' baselines
    leave. `widening`: factor the thrash guard learned; soft and recycle move up, hard does not.
    """
    baseline = max(0, baseline_bytes)
    room = room_bytes(budget_bytes, own_bytes, baselines_of_all, workers, settings)
    share = room // max(1, workers)
    hard = share
    if reserved_bytes > share * _RECYCLE_SHARE:
        hard = max(share, min(room, int(reserved_bytes * _PREDICTION_SLACK)))
    if settings.max_worker_rss_bytes is not None:
        hard = min(hard, settings.max_worker_rss_bytes - baseline)
    fits = hard >= settings.smallest_allowance_bytes
    hard = max(hard, settings.smallest_allowance_bytes)
    soft, recycle = _below_hard(hard, share, reserved_bytes, widening, settings)
    return Limits(
        baseline_bytes=baseline,
        soft_bytes=baseline + soft,
        recycle_bytes=baseline + recycle,
        hard_bytes=baseline + hard,
        fits=fits,
        widest=recycle >= int(hard * _RESERVED_RECYCLE_SHARE),
    )


def _below_hard(
    hard: int, share: int, reserved_bytes: int, widening: float, settings: WatchSettings
) -> tuple[int, int]:
    """Soft and recycle above the baseline. Strict, because `hard` is at least a megabyte and each step down is
    a tenth of it or a twentieth."""
    highest_recycle = int(hard * _RESERVED_RECYCLE_SHARE)
    recycle = max(settings.allowance_critical_bytes, int(share * _RECYCLE_SHARE))
    recycle = min(recycle, int(hard * _HIGHEST_RECYCLE_SHARE))
    soft = max(settings.allowance_warning_bytes, int(share * _SOFT_SHARE))
    soft = min(soft, int(recycle * _HIGHEST_SOFT_OF_RECYCLE))
    recycle = min(int(recycle * max(1.0, widening)), highest_recycle)
    if reserved_bytes > recycle:
        recycle = highest_recycle
    highest_soft = int(recycle * _RESERVED_SOFT_OF_RECYCLE)
    soft = min(int(soft * max(1.0, widening)), highest_soft)
    return (highest_soft if reserved_bytes > soft else soft), recycle


def room_bytes(
    budget_bytes: int, own_bytes: int, baselines_of_all: Sequence[int], workers: int, settings: WatchSettings
) -> int:
    """What all workers together may hold above their baselines; 0 where the budget does not even hold those."""
    if settings.max_total_bytes is not None:
        budget_bytes = min(budget_bytes, settings.max_total_bytes)
    baselines = sum(baselines_of_all)
    if baselines_of_all:
        baselines += max(0, workers - len(baselines_of_all)) * (baselines // len(baselines_of_all))
    left = max(0, budget_bytes - own_bytes - baselines)
    return left - min(settings.keep_free_bytes, left // _KEEP_FREE_OF_ROOM)


def workers_that_fit(
    baseline_bytes: int,
    budget_bytes: int,
    own_bytes: int,
    item_bytes: int,
    settings: WatchSettings,
    most: int | None = None,
) -> int:
    """The largest number of workers, at most `most`, of this private baseline that can each take an item of
    `item_bytes`; may be 0."""
    needed = max(item_bytes, settings.smallest_allowance_bytes)

    def fit(workers: int) -> bool:
        room = room_bytes(budget_bytes, own_bytes, [baseline_bytes * workers], 1, settings)
        return room // workers >= needed

    low, high = 0, max(0, budget_bytes - own_bytes) // (max(0, baseline_bytes) + needed)
    if most is not None and most <= high:
        if fit(most):  # the rule, and asked at every look
            return most
        high = most - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fit(middle) else (low, middle - 1)
    return low


def is_tight(budget_bytes: int, workers: int) -> bool:
    """Tells whether a budget may not hold so many workers: then one is started, and the others by what it takes."""
    return workers > 1 and budget_bytes < workers * _ROOMY_WORKER_BYTES


class Widenings(msgspec.Struct):
    """The thrash guard's memory: by how much the allowance of (slot, recipe) was widened.

    A worker that reaches its recycle limit before it settled `min_items_between_recycles` items would be replaced
    by one that does the same: the limit is wrong, not the worker. It is widened by `widening_factor`, up to
    what the hard limit leaves, and the next worker in the slot starts with what was learned.
    """

    settings: WatchSettings
    factors: dict[tuple[int, str], float] = msgspec.field(default_factory=dict)

    def of(self, slot: int, recipe: str) -> float:
        """The factor for `worker_limits`; 1.0 where nothing was learned."""
        return self.factors.get((slot, recipe), 1.0)

    def widen(self, slot: int, recipe: str) -> float:
        """Widen once more and return the new factor."""
        factor = self.of(slot, recipe) * self.settings.widening_factor
        if (slot, recipe) not in self.factors and len(self.factors) >= MAX_REMEMBERED:
            del self.factors[next(iter(self.factors))]
        self.factors[slot, recipe] = min(factor, _WIDEST)
        return self.factors[slot, recipe]


class Baselines(msgspec.Struct):
    """The warm baselines that were measured, by slot and recipe: what a new worker will hold once it is warm.

    A recipe that loads a model makes its workers hold hundreds of megabytes from their first item on. Knowing that, a
    new worker's first lease reserves the difference, and its limits begin where the worker will be.
    """

    warm: dict[tuple[int, str], int] = {}
    guesses: dict[str, tuple[int, int]] = {}
    """By recipe, while no worker got so far: how many new workers died at their hard limit under it, and the least
    that one of them held."""
    changes: int = 0
    least_bytes: int | None = None
    """The least private baseline of any worker so far: what a fresh one costs, whatever the others hold now."""

    def see(self, private_bytes: Sequence[int]) -> None:
        """These are the private baselines of now."""
        known = [] if self.least_bytes is None else [self.least_bytes]
        self.least_bytes = min([*known, *private_bytes], default=None)

    def learn(self, slot: int, recipe: str, baseline_bytes: int) -> None:
        """A worker of this slot held so much at its first item boundaries under the recipe."""
        self.warm.pop((slot, recipe), None)
        if len(self.warm) >= MAX_REMEMBERED:
            del self.warm[next(iter(self.warm))]
        self.warm[slot, recipe] = baseline_bytes
        self.changes += 1

    def of(self, slot: int, recipe: str) -> int:
        """Returns what a warm worker holds, of another slot where this one is not known; 0: nobody knows."""
        known = self.warm.get((slot, recipe))
        if known is not None:
            return known
        measured = [size for (_, name), size in self.warm.items() if name == recipe]
        if measured:
            return min(measured)
        deaths, least = self.guesses.get(recipe, (0, 0))
        return least if deaths >= _DEATHS_FOR_A_GUESS else 0

    def died_cold(self, recipe: str, held_bytes: int) -> None:
        """A new worker reached its hard limit in its first item: it may be the image, but when it happens again, what
        the recipe itself needs does not fit into a worker's part."""
        deaths, least = self.guesses.pop(recipe, (0, held_bytes))
        if len(self.guesses) >= MAX_REMEMBERED:
            del self.guesses[next(iter(self.guesses))]
        self.guesses[recipe] = (deaths + 1, min(least, held_bytes))
