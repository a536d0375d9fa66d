"""How well an image's peak is predicted: real items performed as a worker does, learned from as the supervisor does.

Reserved is what the worker would be allowed for the item (the prior times the factor learned so far), measured its
exact peak above what the process held before it. Peaks below the resolution of the measurement (`RESOLUTION_BYTES`,
4 MB, where its reason is told) count as that. Under-predictions are counted after the first 200 items; factors reach
the worker after every ten, as they would with leases of ten.
"""

import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from statistics import median

from tests.bench import pictures
from tests.bench.rows import Row, p95
from tests.bench.terms import Terms

RECIPES = ("thumbs", "web")
LEARNED_AFTER = 200
ITEMS = 600
LEASE = 10
RATIO_AT_MOST, UNDER_AT_MOST_PERCENT = 2.0, 1.0
Seen = tuple[int, int]
"""Reserved and measured bytes of one item."""


def run(terms: Terms) -> Iterator[Row]:
    """A row a recipe and figure."""
    with tempfile.TemporaryDirectory(prefix="bench-prediction-") as place:
        folder = terms.gallery
        if folder is None:
            folder = os.path.join(place, "made")
            pictures.camera(folder, terms.count(24, 12))
            pictures.small(folder, terms.count(48, 24))
        paths = [os.path.join(folder, name) for name in pictures.found(folder)]
        total = terms.count(ITEMS, ITEMS // 2)
        for recipe in RECIPES:
            shuffled = [path for _ in range(total // len(paths) + 1) for path in paths][:total]
            random.Random(1).shuffle(shuffled)
            yield from _rows(recipe, _measured(recipe, shuffled, place))


def _rows(recipe: str, seen: Sequence[Seen]) -> Iterator[Row]:
    ratios = [reserved / measured for reserved, measured in seen]
    later = ratios[LEARNED_AFTER:] or ratios
    under = 100 * sum(ratio < 1 for ratio in later) / len(later)
    middle = median(later)
    yield Row(
        name=f"measured above reserved, {recipe}", ours=under, unit="% of items", runs=len(later),
        target=f"≤ {UNDER_AT_MOST_PERCENT:g}", met=under <= UNDER_AT_MOST_PERCENT,
        beside=f"worst {min(later):.2f}; among the first {LEARNED_AFTER}: "
        f"{sum(ratio < 1 for ratio in ratios[:LEARNED_AFTER])}",
    )  # fmt: skip
    yield Row(
        name=f"reserved ÷ measured, {recipe}", ours=middle, unit="", runs=len(later), p95=p95(later),
        target=f"≤ {RATIO_AT_MOST:g}", met=middle <= RATIO_AT_MOST,
    )  # fmt: skip


def _measured(recipe: str, paths: Sequence[str], place: str) -> list[Seen]:
    """Returns what each image that was decoded was reserved and took, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(recipe, paths, place, there), daemon=True)
    child.start()
    there.close()
    try:
        found: list[Seen] = here.recv()
    except EOFError:
        raise RuntimeError(f"the process that performs {recipe} died") from None
    finally:
        child.join()
    return found


def _child(recipe: str, paths: Sequence[str], place: str, there: Connection) -> None:
    from protocol.launch import ImageLimits
    from protocol.paths import to_token
    from supervisor.policy.prediction.model import RESOLUTION_BYTES, Predictor, signature
    from supervisor.recipes import BUILT_IN
    from tests.mechanism.performing import Notes
    from workers.memory import PeakMeter, give_back_at_once
    from workers.perform import Context, Job, perform
    from workers.recipe import compile_recipe
    from workers.source import Factors

    os.environ["VIPS_CONCURRENCY"] = "1"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    give_back_at_once()
    name, compiled = signature(BUILT_IN[recipe]), compile_recipe(BUILT_IN[recipe])
    temp, out = os.path.join(place, "temp"), os.fsencode(os.path.join(place, "out"))
    os.makedirs(temp, exist_ok=True)
    worker = Context(Notes(), "0badcafe", temp, ImageLimits(), PeakMeter())
    predictor, factors, seen = Predictor(), Factors(), []
    for number, path in enumerate(paths):
        if number % LEASE == 0:
            factors = {(each.format, each.kind, each.decoder): each.factor for each in predictor.factors(name)}
        raw = os.fsencode(path)
        job = Job(
            item=number, path=raw, path_token=to_token(raw), stem=f"{number % 50}", out=out, overwrite=True,
            submitted_at=9e9, memory_bytes=1 << 31, factors=factors,
        )  # fmt: skip
        said = perform(compiled, job, worker)
        if said.weighed is None or said.outcome not in ("done", "failed"):
            continue
        predictor.observe(name, said.weighed, said.peak_bytes, done=said.outcome == "done")
        measured = max(said.peak_bytes - said.weighed.held_bytes, RESOLUTION_BYTES)
        seen.append((said.weighed.predicted_bytes, measured))
    there.send(seen)
