"""What the tests of the workers' image side share: a recipe performed on one file, without a pool around it."""

import os
from typing import Any

import msgspec

from protocol import paths
from protocol.launch import ImageLimits
from protocol.messages import ItemReport, Recipe, Step
from workers.perform import Context, Job, perform
from workers.recipe import CompiledRecipe, compile_recipe

THUMBS = Step(operation="thumbnail", parameters={"sizes": [256, 1024], "format": "webp", "quality": 80})
LATER = 9e9
"""A date of submission after which no test's file was changed."""


class Notes:
    """Takes what the flight recorder would: the steps begun and the unfinished outputs announced."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.stats: list[tuple[int, int]] = []
        self.partials: list[bytes] = []

    def step(self, number: int) -> None:
        """As `Recorder.step`."""
        self.steps.append(number)

    def stat(self, size_bytes: int, mtime_ns: int) -> None:
        """As `Recorder.stat`."""
        self.stats.append((size_bytes, mtime_ns))

    def partial(self, path: bytes) -> None:
        """As `Recorder.partial`."""
        self.partials.append(path)


class Peak:
    """Reads the peak without resetting it."""

    def reset(self) -> None:
        """Leaves the peak as it is."""

    def read(self) -> int:
        """Returns VmHWM in bytes."""
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def recipe_of(*steps: Step) -> CompiledRecipe:
    """Returns the compiled recipe of these steps."""
    return compile_recipe(Recipe(name="test", steps=list(steps)))


def step(operation: str, **parameters: Any) -> Step:
    """Returns one step."""
    return Step(operation=operation, parameters=parameters)


class Bench:
    """A directory to work in and the context of a worker."""

    def __init__(self, directory: str | os.PathLike[str], limits: ImageLimits | None = None) -> None:
        self.directory = os.fspath(directory)
        self.out = os.path.join(self.directory, "out")
        self.notes = Notes()
        temp = os.path.join(self.directory, "temp")
        os.makedirs(temp, exist_ok=True)
        self.context = Context(self.notes, "0badcafe", temp, limits or ImageLimits(), Peak())

    def job(self, path: bytes, **changes: Any) -> Job:
        """Returns the job of one file: its outputs are named after it, directly below `out`."""
        facts: dict[str, Any] = {
            "item": 7,
            "path": path,
            "path_token": paths.to_token(path),
            "stem": paths.to_token(os.path.basename(path)),
            "out": os.fsencode(self.out),
            "submitted_at": LATER,
            "memory_bytes": 1 << 40,
        }
        return Job(**(facts | changes))

    def run(self, path: bytes, *steps: Step, **changes: Any) -> ItemReport:
        """Performs the steps (thumbnails by default) on one file."""
        return perform(recipe_of(*(steps or (THUMBS,))), self.job(path, **changes), self.context)


def outputs(report: ItemReport) -> list[dict[str, Any]]:
    """Returns the outputs that a report tells."""
    return msgspec.json.decode(bytes(report.outputs), type=list[dict[str, Any]])


def values(report: ItemReport) -> dict[str, Any]:
    """Returns the values that a report tells."""
    return msgspec.json.decode(bytes(report.values), type=dict[str, Any])


def warnings(report: ItemReport) -> list[str]:
    """Returns the warnings that a report tells."""
    return msgspec.json.decode(bytes(report.warnings), type=list[str])
