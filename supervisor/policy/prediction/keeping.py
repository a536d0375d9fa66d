"""What was learned, written down once a minute and at the stop, and read again at the next start.

Images, recipes and libraries are the same after a restart, so what they take is too: factors, reservations, the warm
baselines of workers and how far the thrash guard had to widen their limits. Whatever cannot be what was written
(another edition, damage, a stranger's file) is left aside with a line in the log: learning begins anew.
"""

import msgspec

from supervisor.policy.commands import Command, KeepLearned, Note
from supervisor.policy.events import Remembered
from supervisor.policy.limits import MAX_REMEMBERED
from supervisor.policy.prediction.model import CLASSES_MAX, RECIPES_MAX, ClassKey, Learned, Predictor
from supervisor.policy.prediction.sketch import Sketch
from supervisor.policy.state import PoolState

EDITION = 1
EVERY_SECONDS = 60.0
LARGEST_BYTES = 4 * 1024 * 1024
"""Of the file: all classes with every bucket filled take less."""
_BYTES_MOST = 1 << 47


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """The file. `baselines` and `widenings` are by slot and recipe."""

    edition: int
    classes: list[tuple[ClassKey, Learned]]
    needs: dict[str, Sketch]
    errors: Sketch
    items: int
    under_predicted: int
    baselines: list[tuple[int, str, int]]
    widenings: list[tuple[int, str, float]]


def encode(state: PoolState) -> bytes:
    """Returns what was learned as JSON."""
    predictor = state.predictor
    kept = Kept(
        edition=EDITION,
        classes=list(predictor.classes.items()),
        needs=predictor.needs,
        errors=predictor.errors,
        items=predictor.items,
        under_predicted=predictor.under_predicted,
        baselines=[(slot, recipe, size) for (slot, recipe), size in state.baselines_known.warm.items()],
        widenings=[(slot, recipe, factor) for (slot, recipe), factor in state.widenings.factors.items()],
    )
    return msgspec.json.encode(kept)


def keep(state: PoolState, now: float, *, last: bool = False) -> list[Command]:
    """Has what was learned written down when it is time, or at the `last` moment, if there is anything new."""
    count = state.predictor.items + state.baselines_known.changes
    if count == state.kept_count or (now < state.keep_at and not last):
        return []
    state.kept_count = count
    state.keep_at = now + EVERY_SECONDS
    return [KeepLearned(content=encode(state))]


def on_remembered(state: PoolState, event: Remembered) -> list[Command]:
    """Takes in what the run before wrote down."""
    if event.content is None:
        return []
    try:
        kept = _decode(event.content)
    except ValueError as fault:
        message = f"what was learned of memory before this start cannot be used and is learned anew: {fault}"
        return [Note(kind="learned_unusable", message=message, figures={"bytes": len(event.content)})]
    known = Predictor(
        classes=dict(kept.classes),
        needs=kept.needs,
        revisions={key.recipe: 1 for key, _ in kept.classes},
        errors=kept.errors,
        items=kept.items,
        under_predicted=kept.under_predicted,
    )
    state.predictor = known
    for slot, recipe, size in kept.baselines:
        state.baselines_known.learn(slot, recipe, size)
    for slot, recipe, factor in kept.widenings:
        state.widenings.factors[slot, recipe] = factor
    state.kept_count = known.items + state.baselines_known.changes
    return []


def _decode(content: bytes) -> Kept:
    """Raises ValueError with the reason."""
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"it has {len(content)} bytes, at most {LARGEST_BYTES} are ever written")
    try:
        kept = msgspec.json.decode(content, type=Kept)
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not what a supervisor writes ({error})") from error
    if kept.edition != EDITION:
        raise ValueError(f"it is of edition {kept.edition}, this supervisor writes {EDITION}")
    sketches = [kept.errors, *kept.needs.values()]
    sketches += [sketch for _, known in kept.classes for sketch in (known.ratios, known.errors)]
    sound = all(sketch.sound() for sketch in sketches) and all(1e-3 < known.told < 1e3 for _, known in kept.classes)
    sound = sound and all(0 < size < _BYTES_MOST for _, _, size in kept.baselines)
    sound = sound and all(1 <= factor <= 1000 for _, _, factor in kept.widenings)
    if not sound or len(kept.classes) > CLASSES_MAX or len(kept.needs) > RECIPES_MAX:
        raise ValueError("its figures are out of their range")
    if max(len(kept.baselines), len(kept.widenings)) > MAX_REMEMBERED:
        raise ValueError(f"it remembers more than {MAX_REMEMBERED} workers")
    return kept
