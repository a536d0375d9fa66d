"""Factors, reservations and the error report: everything that is learned of predictions.

A factor is never below 1 before ENOUGH items of its class were measured: the prior is an upper bound, a few small
images are no reason to doubt it. Afterwards it follows the upper quantile both ways, times a margin: of n values the
largest is exceeded by the next one with a chance of 1 / (n + 1), so the margin shrinks with their root.
"""

import math
import zlib

import msgspec

from protocol.messages import Factor, Prediction, Recipe, Weighed
from supervisor.policy.prediction.sketch import MEMORY, Sketch

CLASSES_MAX = 256
RECIPES_MAX = 64
ENOUGH = 20
"""Items of a class after which its factor may go below 1."""
ENOUGH_FOR_RESERVATION = 30
"""Items of a recipe after which a lease reserves what was learned instead of the worker's whole part."""
FACTOR_QUANTILE = 0.995
RESERVATION_QUANTILE = 0.98
"""One item in fifty is handed back and gets a lease of its own with a larger reservation."""
FACTOR_MOST = 16.0
FACTOR_LEAST = 1 / 16
RESOLUTION_BYTES = 4_000_000
"""No peak is told finer (`workers.images.cost.RESOLUTION_BYTES`): smaller ones count as so many bytes."""
_TOLD_ABOVE, _TOLD_BELOW = 1.02, 0.90
"""Workers are told when a factor rises by 2 % or falls by 10 %: a prediction too small is the sin."""
_LARGEST_BYTES = 1 << 44


def _ratios() -> Sketch:
    return Sketch(low=1 / 64, high=64.0)


def _sizes() -> Sketch:
    return Sketch(low=float(RESOLUTION_BYTES), high=float(_LARGEST_BYTES))


class ClassKey(msgspec.Struct, frozen=True, order=True):
    """A class of images: what is the same for all of them as far as memory goes."""

    recipe: str
    format: str
    kind: str
    decoder: str


class Learned(msgspec.Struct):
    """What is known of one class. `ratios`: measured / prior; `errors`: predicted / measured; `told`: the factor
    workers were told."""

    ratios: Sketch = msgspec.field(default_factory=_ratios)
    errors: Sketch = msgspec.field(default_factory=_ratios)
    items: int = 0
    under_predicted: int = 0
    told: float = 1.0

    def factor(self) -> float:
        """Returns what priors of this class should be multiplied with."""
        count = self.ratios.count
        if not count:
            return 1.0
        margin = 1 + 1 / math.sqrt(min(count, MEMORY))
        largest = self.ratios.quantile(FACTOR_QUANTILE)
        found = largest * margin
        if largest <= 1.0:
            found = 1.0 if count < ENOUGH else min(1.0, found)  # the margin alone does not outbid the prior
        return min(max(found, FACTOR_LEAST), FACTOR_MOST)


class Predictor(msgspec.Struct):
    """All classes and recipes, the one used last at the end; `revisions` counts changes of a recipe's factors."""

    classes: dict[ClassKey, Learned] = {}
    needs: dict[str, Sketch] = {}
    revisions: dict[str, int] = {}
    errors: Sketch = msgspec.field(default_factory=_ratios)
    items: int = 0
    under_predicted: int = 0

    def observe(self, recipe: str, weighed: Weighed, peak_bytes: int, *, done: bool) -> None:
        """Takes in one measured item of `recipe` (`signature`). One that failed early proves no prediction too large,
        but may prove one too small."""
        if not 0 < weighed.held_bytes <= peak_bytes or weighed.prior_bytes <= 0 or weighed.predicted_bytes <= 0:
            return
        measured = max(peak_bytes - weighed.held_bytes, RESOLUTION_BYTES)
        if not done and measured <= weighed.prior_bytes:
            return
        known = self._class(ClassKey(recipe, weighed.format, weighed.kind, weighed.decoder))
        known.items += 1
        known.ratios.add(measured / weighed.prior_bytes)
        self.items += 1
        for errors in (known.errors, self.errors):
            errors.add(weighed.predicted_bytes / measured)
        if measured > weighed.predicted_bytes:
            known.under_predicted += 1
            self.under_predicted += 1
        self._sizes_of(recipe).add(max(measured, weighed.predicted_bytes))
        factor = known.factor()
        if not _TOLD_BELOW <= factor / known.told <= _TOLD_ABOVE:
            known.told = factor
            self.revisions[recipe] = self.revisions.get(recipe, 0) + 1

    def factors(self, recipe: str) -> list[Factor]:
        """Returns what workers are to be told of a recipe."""
        return [
            Factor(key.format, key.kind, key.decoder, round(known.told, 4))
            for key, known in self.classes.items()
            if key.recipe == recipe
        ]

    def reservation_bytes(self, recipe: str) -> int | None:
        """Returns what nearly all items of a recipe were predicted to take; None: too few are known."""
        sizes = self.needs.get(recipe)
        if sizes is None or sizes.count < ENOUGH_FOR_RESERVATION:
            return None
        return int(sizes.quantile(RESERVATION_QUANTILE))

    def _class(self, key: ClassKey) -> Learned:
        known = self.classes.pop(key, None) or Learned()
        if len(self.classes) >= CLASSES_MAX:
            dropped = next(iter(self.classes))
            del self.classes[dropped]
            self.revisions[dropped.recipe] = self.revisions.get(dropped.recipe, 0) + 1
        self.classes[key] = known
        return known

    def _sizes_of(self, recipe: str) -> Sketch:
        sizes = self.needs.pop(recipe, None) or _sizes()
        if len(self.needs) >= RECIPES_MAX:
            dropped = next(iter(self.needs))
            del self.needs[dropped]
            self.revisions.pop(dropped, None)
            self.classes = {key: known for key, known in self.classes.items() if key.recipe != dropped}
        self.needs[recipe] = sizes
        return sizes


def signature(recipe: Recipe) -> str:
    """Returns what a recipe is known by: its name, and a checksum of its steps, which a user may change."""
    return f"{recipe.name}#{zlib.crc32(msgspec.json.encode(recipe.steps)):08x}"


def error_report(predictor: Predictor) -> list[Prediction]:
    """Returns how good the predictions were: over all (`operation` is "all"), then for each class."""
    rows = [
        Prediction(
            operation=key.recipe.partition("#")[0],
            format=key.format,
            kind=key.kind,
            decoder=key.decoder,
            items=known.items,
            factor=round(known.told, 3),
            ratio_median=round(known.errors.quantile(0.5), 3),
            ratio_p95=round(known.errors.quantile(0.95), 3),
            under_predicted=known.under_predicted,
        )
        for key, known in sorted(predictor.classes.items())
    ]
    if not rows:
        return []
    whole = Prediction(
        operation="all",
        format="",
        kind="",
        decoder="",
        items=predictor.items,
        factor=1.0,
        ratio_median=round(predictor.errors.quantile(0.5), 3),
        ratio_p95=round(predictor.errors.quantile(0.95), 3),
        under_predicted=predictor.under_predicted,
    )
    return [whole, *rows]
