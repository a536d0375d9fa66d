"""Who grows and does not shrink again.

Workers measure what they hold at the joints of their items (`workers.held`): before the item, once it is read, after
each step. From one item's beginning to the next one's is what the item left behind; summed over the items of a recipe
(of all workers, each after its first ones, which load libraries and fill caches) it is a curve that a leak makes rise
steadily, and that warm-up, saw-teeth and single large images do not (`steadiness.steady`). The operation to blame is
the one whose own difference, item by item, comes nearest to what the items left behind.

Python counts its memory blocks: growth that comes with blocks is kept by Python's objects, growth without is native.

A leak that is sure has a use: a worker that would reach its recycle limit within its next lease is replaced before it,
at the boundary between two leases, where nothing has to be handed back.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from statistics import median
from typing import Literal

import msgspec

from protocol.messages import ItemReport, Leak, Memory
from supervisor.policy.commands import Command, Note
from supervisor.policy.leaks_models import guilty_model, models_of
from supervisor.policy.sizes import KB, MB, human
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.steadiness import SURE, Grown, RecipeWatch, Steady, WorkerWatch, steady
from supervisor.policy.stopping import recycle
from supervisor.policy.worker import Worker

Where = Literal["heap", "native"]
_WORDS: dict[Where, str] = {"heap": "in Python's objects", "native": "in native memory"}

WARM_ITEMS = 5
"""The first items of a worker load libraries, tables and caches: as many as the baseline takes."""
RECENT = 60
MAX_RECIPES, MAX_FOUND = 64, 64
_EVERY, _YOUNG = 2, 30
"""Judged at every second sample; while they are few, when each counts, at every one."""
STEADY_SHARE = 0.03
STEADY_BYTES_PER_SECOND = 0.01 * MB
STEADY_BYTES = 10 * MB
STEADY_BYTES_PER_ITEM = 16 * KB
"""From the 3 % a sample, 0.01 MB/s and 10 MB of the memory managers this follows; and what an item may leave behind
in tables that grow with what was seen."""
LEAST_BYTES = 1 * MB
"""Less growth than this in the window is nothing to act on: a megabyte of names and counters is no leak."""
EXPLAINED = 0.5
"""Part of what items left behind that the own growth of one step must account for: less, and nobody is blamed."""
_PART_SPENT = 0.5
HEAP_BLOCKS_PER_ITEM = 0.5
"""What Python's objects keep takes a block an item at least; clean items leave none (0.00 measured over 4,000). Only
while a worker warms up do these come to some blocks an item: hence the step that is blamed is looked at by itself."""
BLOCK_BYTES = 90
"""Mean size of a small object, as the workers reckon it (`workers.memory`)."""
HEAP_CONFIDENCE = 0.5
"""Of a worker's blocks: a module that was loaded meanwhile is no growth."""
READING = "reading"
"""Blamed where the growth came while the image was opened and decoded, before the first step."""


def on_items(
    state: PoolState, slot: Slot, worker: Worker, recipe: str, steps: Sequence[str], items: Sequence[ItemReport],
    memory: Memory, now: float,
) -> list[Command]:  # fmt: skip
    """Takes in the items of a report; tells leaks that are found, and those that were none."""
    watch = state.leaks.workers.get(slot.index)
    if watch is None or watch.incarnation != worker.incarnation:
        watch = state.leaks.workers[slot.index] = WorkerWatch(incarnation=worker.incarnation)
    commands: list[Command] = []
    for item in items:
        if len(item.held) == len(steps) + 2 and min(item.held) >= 0:
            commands += _boundary(state, watch, recipe, steps, item, now)
        elif watch.recipe != recipe:
            watch.held = []
        watch.since += 1
        watch.items += 1
    if items:
        watch.figures.append((now, watch.items, memory.rss_bytes, memory.blocks, memory.kept_bytes))
    return commands


def _boundary(
    state: PoolState, watch: WorkerWatch, recipe: str, steps: Sequence[str], item: ItemReport, now: float
) -> list[Command]:
    """A measured item begins: what the one measured before it left behind is known now."""
    commands: list[Command] = []
    before, name, held = watch.held, watch.recipe, item.held
    if before and name is not None and watch.since and watch.items - watch.since >= WARM_ITEMS:
        known = state.leaks.recipes.get(name)
        if known is not None:
            parts = tuple(after - first for first, after in pairwise(before))
            left = held[0] - before[0]
            blocks = item.held_blocks - watch.held_blocks if item.held_blocks and watch.held_blocks else None
            known.grown.append(Grown(now, watch.since, left, held[0], parts, blocks, watch.step_blocks, watch.models))
            known.samples += 1
            state.leaks.items += watch.since
            if known.samples % _EVERY == 0 or known.samples < _YOUNG:
                commands = _judge(state, name, known, now)
    operations = (READING, *steps)
    if recipe not in state.leaks.recipes or state.leaks.recipes[recipe].operations != operations:
        if len(state.leaks.recipes) >= MAX_RECIPES:
            del state.leaks.recipes[next(iter(state.leaks.recipes))]
        state.leaks.recipes[recipe] = RecipeWatch(operations=operations)
    watch.held, watch.recipe, watch.since = held, recipe, 0
    watch.held_blocks, watch.step_blocks = item.held_blocks, tuple(item.step_blocks)
    watch.models = models_of(item, len(steps), watch.models)
    return commands


def _judge(state: PoolState, recipe: str, watch: RecipeWatch, now: float) -> list[Command]:
    leaks = _leaks_in(state, recipe, watch, state.epoch(now))
    found = state.leaks.found
    keys = [(leak.subject_kind, leak.subject, recipe) for leak in leaks]
    for over in [key for key in found if key[2] == recipe and key not in keys]:
        del found[over]
    commands: list[Command] = []
    for key, leak in zip(keys, leaks, strict=True):
        known = found.get(key)
        if known is None and len(found) >= MAX_FOUND:
            continue
        found[key] = leak if known is None else msgspec.structs.replace(leak, found_at=known.found_at)
        if known is None:
            figures = msgspec.to_builtins(leak)
            commands.append(Note(kind="leak", message=leak.message, figures={**figures, "recipe": recipe}))
    return commands


def _leaks_in(state: PoolState, recipe: str, watch: RecipeWatch, at: float) -> list[Leak]:
    """The leak in a recipe, over all that is kept or over the last items alone (one that began lately): its operation,
    and the model that this uses, where that is to blame."""
    for window in (list(watch.grown), list(watch.grown)[-RECENT:]):
        growth = _growth(window)
        if growth.confidence < SURE or not _matters(window, growth):
            continue
        name, explained = _blame(window, watch.operations)
        confidence = growth.confidence * min(1.0, explained / EXPLAINED)
        if confidence < SURE:
            continue
        items = sum(grown.items for grown in window)
        seconds = max(1e-3, window[-1].at - window[0].at)
        number = watch.operations.index(name)
        model = guilty_model(window, number, growth.slope, state.leaks.recipes, recipe)
        where = _where(window, number)
        stays = f"{human(int(growth.slope))} an item stay behind {_WORDS[where]}"
        rest = (
            f"{human(int(growth.grown))} in {items} items of recipe {recipe} (confidence {confidence:.2f}); workers "
            "are replaced before it hurts"
        )
        operation = Leak(
            subject_kind="operation",
            subject=name,
            where=where,
            bytes_per_item=round(growth.slope, 1),
            bytes_per_second=round(growth.grown / seconds, 1),
            items=items,
            confidence=round(confidence, 3),
            found_at=at,
            message=f"{name} leaks{f' while it uses model {model}' if model else ''}: {stays}, {rest}",
        )
        if model is None:
            return [operation]
        told = f"model {model} leaks where {name} uses it: {stays}, {rest}"
        return [operation, msgspec.structs.replace(operation, subject_kind="model", subject=model, message=told)]
    return []


def _growth(window: Sequence[Grown]) -> Steady:
    counts = accumulate(grown.items for grown in window)
    return steady(list(zip(counts, accumulate(grown.bytes for grown in window), strict=True)))


def _where(window: Sequence[Grown], number: int) -> Where:
    """Who holds what the part of that number leaves: Python's objects where blocks are left, and it makes some.

    The median item tells: a lease that begins or ends takes or gives back blocks by the score, which is no item's
    doing, and leases become shorter towards the end of a batch. Where no item's blocks are known the part alone tells.
    """
    made = [grown.step_blocks[number] for grown in window if number < len(grown.step_blocks)]
    if made and median(made) < HEAP_BLOCKS_PER_ITEM:
        return "native"
    left = [grown.blocks / grown.items for grown in window if grown.blocks is not None] or made
    return "heap" if left and median(left) >= HEAP_BLOCKS_PER_ITEM else "native"


def _matters(window: Sequence[Grown], growth: Steady) -> bool:
    """Whether a steady growth is one to act on."""
    if growth.slope <= 0 or growth.grown < LEAST_BYTES:
        return False
    return growth.slope >= min(STEADY_BYTES_PER_ITEM, STEADY_SHARE * window[0].held) or growth.grown >= STEADY_BYTES


def _blame(window: Sequence[Grown], operations: Sequence[str]) -> tuple[str, float]:
    """The operation whose own growth is nearest to what the items left behind, and the part of it that it explains."""
    known = [grown for grown in window if len(grown.steps) == len(operations)]
    if not known:
        return operations[-1], 0.0
    scale = median(abs(grown.bytes / grown.items) for grown in known) or 1.0
    rests = [median(abs(grown.steps[n] - grown.bytes / grown.items) for grown in known) for n in range(len(operations))]
    best = min(range(len(operations)), key=lambda n: rests[n])
    return operations[best], max(0.0, 1.0 - rests[best] / scale)


def recycle_early(state: PoolState, slot: Slot, worker: Worker, recipe: str, now: float) -> list[Command]:
    """Replaces a worker whose next lease would take it to its recycle limit, by a leak that is sure.

    Never a young one, nor one that has used up less than half of its allowance: its successor would come to that
    within a lease too.
    """
    if worker.items_done < state.settings.watch.min_items_between_recycles or not worker.baseline_bytes:
        return []
    sure = [leak for key, leak in state.leaks.found.items() if key[2] == recipe and _is_sure(leak)]
    if not sure:
        return []
    rates = [leak.bytes_per_item for leak in sure]
    models = [f", model {leak.subject}" for leak in sure if leak.subject_kind == "model"]
    limits = state.limits(slot)
    ahead = int(max(rates) * slot.batch_size.size)
    spent = worker.rss_bytes - limits.baseline_bytes
    if worker.rss_bytes + ahead < limits.recycle_bytes or spent < _PART_SPENT * limits.item_bytes:
        return []
    why = (
        f"it leaks {human(int(max(rates)))} an item under recipe {recipe}{''.join(models)}: at "
        f"{human(worker.rss_bytes)} its next {slot.batch_size.size} items "
        f"would take it to its recycle limit of {human(limits.recycle_bytes)}"
    )
    return recycle(state, slot, now, "leak", why, {"ahead_bytes": ahead, "limit_bytes": limits.recycle_bytes})


def _is_sure(leak: Leak) -> bool:
    return leak.confidence >= SURE


def leaks(state: PoolState) -> list[Leak]:
    """Returns what grows: operations and models, then workers whose resident memory does."""
    workers = [_of_worker(state, slot) for slot in state.slots if slot.worker is not None]
    return [*state.leaks.found.values(), *(leak for leak in workers if leak is not None)]


def _of_worker(state: PoolState, slot: Slot) -> Leak | None:
    watch = state.leaks.workers.get(slot.index)
    worker = slot.worker
    if watch is None or worker is None or watch.incarnation != worker.incarnation or watch.items < RECENT:
        return None
    figures = list(watch.figures)
    if not _grows(steady([(at, rss) for at, _, rss, _, _ in figures])):
        return None
    where = _where_its_operation(state, watch.recipe) or _where_of_worker(figures)
    # What the C library keeps free is resident, and is nobody's: only what grows beside it is held.
    held = steady([(at, max(0, rss - kept)) for at, _, rss, _, kept in figures])
    if where == "native":
        # Python's share is taken off as well: what libraries hold must grow by itself.
        native = [(at, max(0, rss - kept - blocks * BLOCK_BYTES)) for at, _, rss, blocks, kept in figures]
        held = min(held, steady(native), key=lambda line: line.confidence)
    if not _grows(held):
        return None
    items = max(1, figures[-1][1] - figures[0][1])
    per_item = held.grown / items
    return Leak(
        subject_kind="worker",
        subject=f"worker {slot.index}",
        where=where,
        bytes_per_item=round(per_item, 1),
        bytes_per_second=round(held.slope, 1),
        items=items,
        confidence=round(held.confidence, 3),
        found_at=state.epoch(figures[-1][0]),
        message=f"worker {slot.index} grows by {human(int(held.slope))} a second {_WORDS[where]}, "
        f"{human(int(held.grown))} so far (confidence {held.confidence:.2f})",
    )


def _grows(line: Steady) -> bool:
    return line.confidence >= SURE and line.slope >= STEADY_BYTES_PER_SECOND and line.grown >= STEADY_BYTES


def _where_its_operation(state: PoolState, recipe: str | None) -> Where | None:
    """What is known of the operation that leaks under the worker's recipe: measured step by step, it is surer."""
    known = [leak.where for key, leak in state.leaks.found.items() if key[2] == recipe]
    return ("native" if known[0] == "native" else "heap") if known else None


def _where_of_worker(figures: Sequence[tuple[float, int, int, int, int]]) -> Where:
    """Python counts its blocks: where they grow with the items, its objects hold what grows, whatever their size."""
    python = steady([(items, blocks) for _, items, _, blocks, _ in figures])
    return "heap" if python.slope >= HEAP_BLOCKS_PER_ITEM and python.confidence >= HEAP_CONFIDENCE else "native"
