"""Reports taken in, factors told, reservations made: the predictor in the pool."""

from collections.abc import Sequence

from protocol.launch import MAX_LEARNED_RECIPES
from protocol.messages import Factor, ItemReport, Prediction, Recipe
from supervisor.policy.prediction.model import error_report, signature
from supervisor.policy.queue import Batch
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.worker import Worker


def learn(state: PoolState, batch: Batch, reports: Sequence[ItemReport]) -> None:
    """Takes in what the items of a report took."""
    recipe = ""
    for said in reports:
        if said.weighed is not None and said.outcome in ("done", "failed"):
            recipe = recipe or signature(batch.record.recipe)
            state.predictor.observe(recipe, said.weighed, said.peak_bytes, done=said.outcome == "done")


def to_be_told(state: PoolState, worker: Worker, recipe: Recipe) -> list[Factor] | None:
    """Returns the factors that this worker does not know yet, None where there are none."""
    if not state.predictor.revisions:
        return None
    name = signature(recipe)
    revision = state.predictor.revisions.get(name, 0)
    if worker.learned.get(name, 0) == revision:
        return None
    if name not in worker.learned and len(worker.learned) >= MAX_LEARNED_RECIPES:
        del worker.learned[next(iter(worker.learned))]
    worker.learned[name] = revision
    return state.predictor.factors(name)


def ordinary_bytes(state: PoolState, recipe: Recipe, part_bytes: int) -> int:
    """Returns what an ordinary lease under this recipe reserves: what nearly all of its items take, at most the
    worker's part, which it also is while too little is known."""
    if not state.predictor.needs:
        return part_bytes
    learned = state.predictor.reservation_bytes(signature(recipe))
    if learned is None:
        return part_bytes
    return min(part_bytes, max(learned, state.settings.watch.smallest_allowance_bytes))


def warming_bytes(state: PoolState, slot: Slot, recipe: Recipe) -> int:
    """Returns what a new worker will hold once it is warm under this recipe, above what it holds now; 0 where nobody
    knows, or it is warm."""
    worker = slot.worker
    known = state.baselines_known
    if worker is None or worker.items_done or not (known.warm or known.guesses):
        return 0
    return max(0, known.of(slot.index, signature(recipe)) - worker.baseline_bytes)


def predictions(state: PoolState) -> list[Prediction]:
    """Returns how good the predictions were, over all and for each class."""
    return error_report(state.predictor)
