"""Whether a model is what grows, where an operation was found to leak while it uses one.

A session of a runtime may keep a little of every inference. From outside that looks like a leak of the operation: both
grow in the same step. What tells them apart is where else the model is used, and what the step does without it:

* items of the same step that did not use the model leave nothing behind: it is the model;
* they leave as much behind: it is not;
* the model is used elsewhere too, by another step or under another recipe, and nothing stays behind there: it is not.

Where there is nothing to compare with, each inference goes with the growth and the model is named beside its operation.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from protocol.messages import ItemReport
from supervisor.policy.steadiness import Grown, RecipeWatch

MAX_MODELS_OF_A_STEP = 4
MAX_NAME = 100
_ENOUGH = 10
"""Items to compare with: fewer may all be ones in which nothing was found to work on."""
_PART = 0.5
"""A part that leaves less than this of the leak behind is clean."""

Models = tuple[tuple[str, ...], ...]


def models_of(item: ItemReport, steps: int, before: Models) -> Models:
    """Returns what each part of an item used, reading first. The same object as for the item before where it is the
    same: there are hundreds of them."""
    if len(item.step_models) != steps:
        return ()
    found = ((), *(tuple(name[:MAX_NAME] for name in names[:MAX_MODELS_OF_A_STEP]) for names in item.step_models))
    return before if found == before else found


def guilty_model(
    window: Sequence[Grown], number: int, bytes_per_item: float, recipes: Mapping[str, RecipeWatch], recipe: str
) -> str | None:
    """Returns the model to blame for what the part of that number leaves behind in each item; None: none."""
    names = {name for grown in window for name in _used(grown, number)}
    for name in sorted(names):
        without = _left((grown for grown in window if name not in _used(grown, number)), number)
        using = _left((grown for grown in window if name in _used(grown, number)), number)
        if len(using) < _ENOUGH or median(using) < _PART * bytes_per_item:
            continue
        if len(without) >= _ENOUGH and median(without) >= _PART * bytes_per_item:
            continue
        if not any(_is_clean(left, bytes_per_item) for left in _elsewhere(name, recipes, recipe, number)):
            return name
    return None


def _used(grown: Grown, number: int) -> tuple[str, ...]:
    return grown.models[number] if number < len(grown.models) else ()


def _left(window: Iterable[Grown], number: int) -> list[int]:
    return [grown.steps[number] for grown in window if number < len(grown.steps)]


def _elsewhere(name: str, recipes: Mapping[str, RecipeWatch], recipe: str, number: int) -> Iterator[list[int]]:
    """What the other parts that use the model left behind, of this recipe and the others."""
    for other, watch in recipes.items():
        for part in range(len(watch.operations)):
            if (other, part) != (recipe, number):
                yield _left((grown for grown in watch.grown if name in _used(grown, part)), part)


def _is_clean(left: list[int], bytes_per_item: float) -> bool:
    return len(left) >= _ENOUGH and median(left) < _PART * bytes_per_item
