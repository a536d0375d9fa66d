"""No more workers than the budget holds.

A budget in which the warm workers cannot all stand, each with the least it needs for an image, would be over its levels
for ever: clean-ups, kills and at last emergency protection would be the everyday. The limits (`limits`) say when that
is so: a worker's part is then below `smallest_allowance_bytes`. The cure is fewer workers, so that is what is done:

* under a tight budget one worker is started first, and as many more as fit beside what it takes;
* when the measured baselines turn out larger, one worker after the other is let go, until the rest fit;
* when there is room again (the budget was raised, a model went, a neighbour left) they come back, one by one.

A cold worker is reckoned with what a warm one takes at least: what is let go again at once had better not be started.
Both ways wait until it was so for a while: memory that comes and goes with images is no reason.
"""

from collections.abc import Sequence

from supervisor.policy.commands import Command, Note
from supervisor.policy.limits import workers_that_fit
from supervisor.policy.sizes import MB, human
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.stopping import stop_worker
from supervisor.policy.watch_settings import WatchSettings
from supervisor.policy.worker import Worker

WARM_BYTES = 12_000_000
"""What a worker holds for itself once it is warm, at least: 5 MB when it has just started, 12 MB after a few photos
under `thumbs`, as measured."""
OWN_BYTES = 75_000_000
"""The supervisor and its template at rest, as measured: 30 MB for itself, 45 MB with all that the workers share."""
FEWER_AFTER_SECONDS = 2.0
MORE_AFTER_SECONDS = 10.0
MORE_AFTER_PROTECTION_SECONDS = 300.0
"""As alerts rest: what was an emergency a moment ago is not tried again at once."""
_MORE_MARGIN = 1.5
"""Of the least allowance: who comes back should not have to leave again for a megabyte."""


def look(state: PoolState, now: float) -> list[Command]:
    """What a look at all workers means for their number."""
    if state.draining:
        return []
    workers = [slot.worker for slot in state.slots if slot.worker is not None]
    # Until a look has found what it shares with the template, a worker seems to hold all of it for itself.
    known = [worker for worker in workers if worker.baseline_bytes and worker.curve]
    if not known:
        return []
    places, warm = state.places, _warm_bytes(state, known)
    least = state.settings.watch.smallest_allowance_bytes
    fit = max(1, _fit(state, warm, least))
    if fit < places:
        return _fewer(state, fit, warm, now)
    state.crowding.fewer_since = None
    if places == len(state.slots):
        state.crowding.told = None
        return []
    first = state.crowding.told is None and all(slot.incarnation == 0 for slot in state.slots if slot.crowded)
    if first:
        return _more(state, fit, warm, now) + _tell(state, fit, warm)
    if now < state.crowding.more_not_before or _fit(state, warm, int(least * _MORE_MARGIN)) <= places:
        state.crowding.more_since = None
        return []
    if state.crowding.more_since is None:
        state.crowding.more_since = now
    return _more(state, places + 1, warm, now) if now - state.crowding.more_since >= MORE_AFTER_SECONDS else []


def _fit(state: PoolState, warm_bytes: int, least_bytes: int) -> int:
    models = state.memory_leases.models.values()
    own = state.own_bytes + sum(model.bytes for model in models if not model.in_baseline)
    watch, most = state.settings.watch, len(state.slots)
    return workers_that_fit(warm_bytes, state.budget_bytes, own, least_bytes, watch, most)


def _warm_bytes(state: PoolState, known: Sequence[Worker]) -> int:
    """The mean of what workers hold for themselves at rest, a cold one taken for as large as it will be."""
    return sum(max(WARM_BYTES, state.private_baseline(worker)) for worker in known) // len(known)


def _fewer(state: PoolState, fit: int, warm_bytes: int, now: float) -> list[Command]:
    """Lets one worker go: an idle one first, else the one that is warm least."""
    crowding = state.crowding
    crowding.more_since = None
    if crowding.fewer_since is None:
        crowding.fewer_since = now
    if now - crowding.fewer_since < FEWER_AFTER_SECONDS or leaving(state):
        return []
    return _let_go(state, fit, warm_bytes, now)


def one_fewer(state: PoolState, now: float) -> list[Command]:
    """Lets one worker go now, by another's word: all of them at rest are too much (emergency protection). None comes
    back for a while: by the sum alone they seemed to fit."""
    known = [slot.worker for slot in state.slots if slot.worker is not None]
    state.crowding.more_not_before = now + MORE_AFTER_PROTECTION_SECONDS
    return _let_go(state, state.places - 1, _warm_bytes(state, known), now)


def _let_go(state: PoolState, fit: int, warm_bytes: int, now: float) -> list[Command]:
    serving = [slot for slot in state.slots if not slot.crowded]
    gone = min(serving, key=_worth)
    gone.crowded, gone.resting, gone.wanted, gone.start_at = True, False, False, None
    _explain(state, warm_bytes)
    return [*_tell(state, fit, warm_bytes), *stop_worker(state, gone, "rest", now)]


def leaving(state: PoolState) -> bool:
    """Whether one that was let go has not ended yet."""
    return any(slot.worker is not None and slot.crowded for slot in state.slots)


def _worth(slot: Slot) -> tuple[bool, int, int]:
    """What would be lost with a slot's worker: its work, then what it has learned."""
    worker = slot.worker
    return worker is not None and worker.state == "BUSY", worker.items_done if worker is not None else 0, -slot.index


def _more(state: PoolState, places: int, warm_bytes: int, now: float) -> list[Command]:
    """So many workers serve from now on. Where there is nothing to do, `idle` lets them rest again."""
    state.crowding.more_since = None
    back = [slot for slot in state.slots if slot.crowded][: max(0, places - state.places)]
    for slot in back:
        slot.crowded, slot.wanted, slot.note = False, True, None
        if slot.worker is None:
            slot.start_at = now
    _explain(state, warm_bytes)
    if state.crowding.told is None or not back:
        return []
    state.crowding.told = None if state.places == len(state.slots) else state.places
    message = f"the budget of {human(state.budget_bytes)} holds {_workers(state.places)} again"
    figures: dict[str, object] = {"workers": state.places, "budget_bytes": state.budget_bytes}
    return [Note(kind="uncrowded", message=message, figures=figures)]


def _tell(state: PoolState, fit: int, warm_bytes: int) -> list[Command]:
    """Says once for each number of workers how many there are, and why not all."""
    crowding, wanted = state.crowding, len(state.slots)
    if fit >= wanted or (crowding.told is not None and crowding.told <= fit):
        return []
    crowding.told = fit
    figures: dict[str, object] = {
        "workers": fit,
        "workers_wanted": wanted,
        "budget_bytes": state.budget_bytes,
        "own_bytes": state.own_bytes,
        "warm_bytes": warm_bytes,
        "budget_for_all_bytes": budget_for(wanted, state.own_bytes, warm_bytes, state.settings.watch),
    }
    message = f"{fit} of {_workers(wanted)} serve: {_why(state, fit, warm_bytes)}"
    return [Note(kind="crowded", message=message, figures=figures)]


def _explain(state: PoolState, warm_bytes: int) -> None:
    for slot in state.slots:
        if slot.crowded:
            slot.note = f"does not serve: {_why(state, state.places, warm_bytes)}"


def _why(state: PoolState, fit: int, warm_bytes: int) -> str:
    return sentence(state.budget_bytes, state.own_bytes, warm_bytes, fit, len(state.slots), state.settings.watch)


def sentence(
    budget_bytes: int, own_bytes: int, warm_bytes: int, fit: int, workers: int, settings: WatchSettings
) -> str:
    """Returns what does not fit into the budget, with the figures and the way out."""
    all_of_them = _asked_for(budget_for(workers, own_bytes, warm_bytes, settings))
    return (
        f"the budget of {human(budget_bytes)} holds no more than {_workers(fit)} ({human(own_bytes)} are taken beside "
        f"them, each takes {human(warm_bytes)} warm and at least {human(settings.smallest_allowance_bytes)} for its "
        f"image); raise --memory to {all_of_them} for {workers}, or lower --workers to {fit}"
    )


def outlook(
    budget_bytes: int, workers: int, settings: WatchSettings, own_bytes: int = OWN_BYTES, warm_bytes: int = WARM_BYTES
) -> str | None:
    """Returns the warning before anything is measured: what a start with these figures would come to. None: all fit.

    Takes bytes; by default what the supervisor and a worker under `thumbs` are known to take.
    """
    fit = max(1, workers_that_fit(warm_bytes, budget_bytes, own_bytes, settings.smallest_allowance_bytes, settings))
    if budget_for(1, own_bytes, warm_bytes, settings) > budget_bytes:
        one = _asked_for(budget_for(1, own_bytes, warm_bytes, settings))
        return (
            f"the budget of {human(budget_bytes)} is too small for one worker ({human(own_bytes)} are taken beside it, "
            f"it takes {human(warm_bytes)} warm, and its image more): raise --memory to {one} at least"
        )
    return None if fit >= workers else sentence(budget_bytes, own_bytes, warm_bytes, fit, workers, settings)


def budget_for(workers: int, own_bytes: int, warm_bytes: int, settings: WatchSettings) -> int:
    """Returns the budget under which so many workers fit, in bytes: what `workers_that_fit` asks for, the other way
    round. A quarter of the room, up to `keep_free_bytes`, is kept free."""
    images = workers * settings.smallest_allowance_bytes
    kept_free = min(settings.keep_free_bytes, images // 3 + 1)
    return own_bytes + workers * warm_bytes + images + kept_free


def _asked_for(size_bytes: int) -> str:
    """A size that somebody may set as he reads it: rounded up."""
    return human(-(-size_bytes // MB) * MB)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
