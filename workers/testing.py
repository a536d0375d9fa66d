"""For authors of operations: try one without a supervisor, on an image made in memory.

    from workers.testing import Trial, gradient

    def test_sepia():
        with Trial(SEPIA, {"strength": 0.5}) as trial:
            result = trial.run(gradient(640, 480))
            assert result.outputs["sepia.jpg"].size == (640, 480)
            trial.assert_no_leak(gradient(640, 480))

`Ballast` takes memory and gives it back under control, `snapshot` tells what the process holds (two can be subtracted),
`assert_given_back` asserts that a clean-up was one; see `workers.footprint`.

What runs is what runs in a worker: the same recipe check, the same limits, the same decode, the same way
to publish; only the process is the test's own.
"""

import gc
import io
import os
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

import msgspec
from PIL import Image

from protocol.launch import ImageLimits
from protocol.messages import Step
from workers.footprint import Ballast, Footprint, assert_given_back, snapshot
from workers.memory import OwnMemory, PeakMeter
from workers.operations import Operation
from workers.perform import Context, Job, perform
from workers.recipe import CompiledRecipe, CompiledStep, check_step

__all__ = ["Ballast", "Failed", "Footprint", "Result", "Trial", "assert_given_back", "gradient", "snapshot"]

_WARM_UP = 5
_STATE_TOKEN = "00000000"
_MEMORY_BYTES = 1 << 40


class Failed(AssertionError):
    """The operation ended other than well; `kind` is the verdict's kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run gave: `outputs` by label and extension (`sepia.jpg`), opened; bytes and seconds as reported."""

    values: dict[str, Any]
    outputs: dict[str, Image.Image]
    warnings: list[str]
    seconds: float
    peak_bytes: int


class _Unrecorded:
    """Takes what a worker tells its flight recorder."""

    def stat(self, size_bytes: int, mtime_ns: int) -> None:
        """As `protocol.recorder.Recorder.stat`."""

    def step(self, number: int) -> None:
        """As `protocol.recorder.Recorder.step`."""

    def partial(self, path: bytes) -> None:
        """As `protocol.recorder.Recorder.partial`."""


class Trial:
    """An operation with parameters (as a recipe would give them), and a directory of its own to work in.

    Raises RecipeError for parameters that the operation refuses.
    """

    def __init__(
        self, operation: Operation, parameters: dict[str, Any] | None = None, limits: ImageLimits | None = None
    ) -> None:
        step = Step(operation=operation.name, parameters=parameters or {})
        checked = check_step(operation, step, f"operation {operation.name!r}")
        self._recipe = CompiledRecipe(
            name="trial",
            version=f"{operation.name}:{operation.version}",
            steps=(CompiledStep(operation, checked),),
            reads=operation.reads,
        )
        self._directory = tempfile.TemporaryDirectory(prefix="operation-")
        temp = os.path.join(self._directory.name, "temp")
        os.mkdir(temp)
        self._environment = os.environ.get("TMPDIR")
        self._context = Context(_Unrecorded(), _STATE_TOKEN, temp, limits or ImageLimits(), PeakMeter())
        self._runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Deletes what it wrote."""
        self._context.models.close()
        self._directory.cleanup()
        tempfile.tempdir = None
        if self._environment is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = self._environment

    def run(self, image: Image.Image | bytes, name: str = "image.png") -> Result:
        """Runs the operation on an image (encoded as PNG) or on the bytes of a file. Raises Failed."""
        self._runs += 1
        top = os.path.join(self._directory.name, str(self._runs))
        os.mkdir(top)
        path = os.path.join(top, name)
        with open(path, "wb") as file:
            file.write(image if isinstance(image, bytes) else _png(image))
        out = os.path.join(top, "out")
        job = Job(
            item=self._runs, path=os.fsencode(path), path_token=path, stem=name, out=os.fsencode(out),
            submitted_at=9e9, memory_bytes=_MEMORY_BYTES,
        )  # fmt: skip
        report = perform(self._recipe, job, self._context)
        if report.error is not None or report.outcome != "done":
            told = report.error
            raise Failed(told.kind if told else report.outcome, told.message if told else "see its outcome")
        return Result(
            values=msgspec.json.decode(bytes(report.values), type=dict[str, Any]).get(self._step_name, {}),
            outputs=_opened(out, name),
            warnings=msgspec.json.decode(bytes(report.warnings), type=list[str]),
            seconds=report.seconds,
            peak_bytes=report.peak_bytes,
        )

    def assert_no_leak(self, image: Image.Image | bytes, runs: int = 20, allowed_bytes: int = 2_000_000) -> None:
        """Asserts that after a few runs to warm up, more runs leave the process no larger than `allowed_bytes` more.

        Both the resident size after a trim and the count of Python's memory blocks are looked at: pixels kept
        show in the one, small objects in the other.
        """
        content = image if isinstance(image, bytes) else _png(image)
        memory = OwnMemory()
        for _ in range(_WARM_UP):
            self.run(content)
        before, blocks = self._settled(memory)
        for _ in range(runs):
            self.run(content)
        after, more = self._settled(memory)
        grown = after - before
        assert grown <= allowed_bytes, f"{runs} runs left {grown:,} bytes behind; {allowed_bytes:,} are allowed"
        kept = (more - blocks) // runs
        assert kept < 100, f"each of {runs} runs left about {kept} Python objects behind"

    @property
    def _step_name(self) -> str:
        return self._recipe.steps[0].operation.name

    @staticmethod
    def _settled(memory: OwnMemory) -> tuple[int, int]:
        gc.collect()
        memory.trim()
        return memory.rss_bytes(), sys.getallocatedblocks()


def gradient(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Returns an image in which every part differs: red grows to the right, green downwards."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.new("L", (width, height), 128))).convert(mode)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _opened(out: str, name: str) -> dict[str, Image.Image]:
    found = {}
    for made in sorted(os.listdir(out)) if os.path.isdir(out) else ():
        with Image.open(os.path.join(out, made)) as image:
            image.load()
            found[made.removeprefix(f"{name}.")] = image.copy()
    return found
