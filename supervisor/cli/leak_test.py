"""`leak-test`: many images through one worker, figures every hundred, and a verdict.

One worker, so that every image goes through the same process; a budget that is large enough for it not to be recycled
before the end. The verdict is on the private memory at the end of each stretch: what a stretch leaves behind for good
is a leak, what comes and goes is not.
"""

import argparse
import os
from typing import Any

import msgspec

from protocol.errors import UsageError
from protocol.messages import BatchProgress, MemoryReport, ProcessMemory, Recipe, Step
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json, say
from supervisor.cli.proving import Ground, make_images, proving_ground
from supervisor.policy.counted import counted
from supervisor.policy.growth import FEWEST_SAMPLES, Growth, judge_growth
from supervisor.policy.sizes import human

IMAGES = 1_000
STRETCH = 100
WARM_UP_SHARE = 0.1
"""The first images load what later ones use."""
PATIENCE_SECONDS_AN_IMAGE = 5.0
_EXAMPLES = """  supervisor leak-test
  supervisor leak-test PHOTOS --images 2000 --recipe web
  supervisor leak-test --step '{"operation": "sharpness"}'"""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The worker after so many images."""

    images: int
    rss_bytes: int
    private_bytes: int
    heap_bytes: int
    native_bytes: int


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="images or directories of them [made by code]")
    parser.add_argument("--images", type=_count, default=IMAGES, metavar="N", help=f"so many images [{IMAGES}]")
    parser.add_argument("--every", type=_count, default=STRETCH, metavar="N", help=f"figures every N [{STRETCH}]")
    parser.add_argument("--recipe", default="thumbs", help="a built-in recipe [thumbs]")
    parser.add_argument("--step", type=_step, metavar="JSON", help="instead of a recipe, one step as JSON")


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1,000,000")
    return int(text)


def _step(text: str) -> Step:
    try:
        return _decode(msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, KeyError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no step: {error}") from None


def _decode(fields: dict[str, Any]) -> Step:
    return Step(str(fields.pop("operation")), fields)


def _run(arguments: argparse.Namespace) -> int:
    recipes = [Recipe(name="leaktest", steps=[arguments.step])] if arguments.step is not None else []
    name = "leaktest" if recipes else arguments.recipe
    with proving_ground(recipes, workers="1", watch_min_items_between_recycles="1000000000") as ground:
        stretches = _stretches(ground, arguments.paths, arguments.images, arguments.every)
        told: list[Figures] = []
        warm = max(1, int(arguments.images * WARM_UP_SHARE))
        for root, names in stretches:
            told.append(_stretch(ground, name, root, names, sum(len(one) for _, one in stretches[: len(told) + 1])))
            if not arguments.json:
                print(_line(told[-1]), flush=True)
    judged = [one for one in told if one.images >= warm]
    verdicts = {
        "heap": judge_growth([(one.images, one.heap_bytes) for one in judged]),
        "private": judge_growth([(one.images, one.private_bytes) for one in judged]),
    }
    return _tell(arguments, told, verdicts)


def _stretches(ground: Ground, paths: list[str], images: int, every: int) -> list[tuple[str, list[str]]]:
    """Returns (directory, names) of each stretch; images given are taken again and again."""
    if not paths:
        names = make_images(ground.photos, images)
        return [(ground.photos, names[start : start + every]) for start in range(0, images, every)]
    found = list(_files(paths))
    if not found:
        raise UsageError(f"there is no file in {', '.join(paths)}")
    names = []
    for number in range(images):
        source = found[number % len(found)]
        name = f"p{number:06d}{os.path.splitext(source)[1]}"
        # A link of its own for each: its outputs are its own, its bytes are the image's.
        _link(source, os.path.join(ground.photos, name))
        names.append(name)
    return [(ground.photos, names[start : start + every]) for start in range(0, images, every)]


def _files(paths: list[str]) -> list[str]:
    found = []
    for path in map(os.path.abspath, paths):
        if os.path.isdir(path):
            for where, _, names in os.walk(path):
                found += [os.path.join(where, name) for name in sorted(names) if not name.startswith(".")]
        else:
            found.append(path)
    return found


def _link(source: str, place: str) -> None:
    import shutil

    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _stretch(ground: Ground, recipe: str, root: str, names: list[str], images: int) -> Figures:
    last: list[ProcessMemory] = []

    def look(report: MemoryReport, progress: BatchProgress) -> None:
        last[:] = [process for process in report.processes if process.role == "worker"]

    ground.run(recipe, root, names, PATIENCE_SECONDS_AN_IMAGE * len(names) + 30, look)
    worker = last[0]
    return Figures(
        images=images,
        rss_bytes=worker.rss_bytes,
        private_bytes=worker.private_bytes,
        heap_bytes=worker.heap_bytes or 0,
        native_bytes=worker.native_bytes or 0,
    )


def _line(figures: Figures) -> str:
    return (
        f"{figures.images:8,} images: RSS {human(figures.rss_bytes)}, private {human(figures.private_bytes)}, "
        f"heap {human(figures.heap_bytes)}, native {human(figures.native_bytes)}"
    )


def _verdict(arguments: argparse.Namespace, leaks: bool, samples: int) -> str:
    if leaks:
        return "verdict: it leaks"
    if samples >= FEWEST_SAMPLES:
        return "verdict: no leak was found"
    # The first part of the images warms up and is not judged.
    enough = int(FEWEST_SAMPLES * arguments.every / (1 - WARM_UP_SHARE)) + arguments.every
    return (
        f"verdict: none; {counted(samples, 'sample')} after warming up, {FEWEST_SAMPLES} are needed: "
        f"--images {enough}, or figures more often with --every {max(1, arguments.images // (3 * FEWEST_SAMPLES))}"
    )


def _tell(arguments: argparse.Namespace, told: list[Figures], verdicts: dict[str, Growth]) -> int:
    leaks = {where: growth for where, growth in verdicts.items() if growth.leaks}
    if arguments.json:
        print_json(
            {
                "leaks": bool(leaks),
                "figures": [msgspec.to_builtins(one) for one in told],
                "growth": {where: msgspec.to_builtins(growth) for where, growth in verdicts.items()},
            }
        )
    for where, growth in verdicts.items():
        say(f"{where}: {growth.message}")
    say(_verdict(arguments, bool(leaks), min(growth.samples for growth in verdicts.values())))
    return 1 if leaks else 0


VERBS = {"leak-test": Verb(_configure, _run, settings=frozenset(), examples=_EXAMPLES)}
