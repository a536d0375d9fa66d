"""Operations: what can be done with an image. One file each: name, version, parameters, cost, run.

A recipe names operations; only the modules it names are imported (a worker pays for what it runs). An
operation says from the header alone how large a picture it needs and what it takes beside it, and then runs
on a picture that all steps share.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import EntryPoint
from typing import Any, Literal

import msgspec
from PIL import Image

from workers import third_party
from workers.errors import RecipeError, Verdict
from workers.images.header import Header
from workers.memory_lease import Lease, Leases
from workers.models import Models
from workers.publish import Publisher
from workers.scratch import Scratch, TempFileTracker
from workers.source import Source

Reads = Literal["nothing", "name", "header", "pixels"]
"""How far an operation goes into the file: not even looked at, its name and state, its header, its pixels."""

MODULES: dict[str, str] = {
    "function": "workers.operations.function",
    "convert": "workers.operations.convert",
    "embed": "workers.operations.embed",
    "noop": "workers.operations.noop",
    "ocr": "workers.operations.ocr",
    "palette": "workers.operations.palette",
    "phash": "workers.operations.phash",
    "probe": "workers.operations.probe",
    "sharpness": "workers.operations.sharpness",
    "strip": "workers.operations.strip",
    "thumbhash": "workers.operations.thumbhash",
    "thumbnail": "workers.operations.thumbnail",
    "misbehave.allocate": "workers.operations.misbehave",
    "misbehave.borrow": "workers.operations.misbehave",
    "misbehave.crash": "workers.operations.misbehave",
    "misbehave.error": "workers.operations.misbehave",
    "misbehave.exit": "workers.operations.misbehave",
    "misbehave.fragment": "workers.operations.misbehave",
    "misbehave.hang": "workers.operations.misbehave",
    "misbehave.hold": "workers.operations.misbehave",
    "misbehave.ignore_terminate": "workers.operations.misbehave",
    "misbehave.leak": "workers.operations.misbehave",
    "misbehave.litter": "workers.operations.misbehave",
    "misbehave.trespass": "workers.operations.trespass",
}
"""Where each operation lives; its module is imported when a recipe names it."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the parameter types; the empty one is for operations without any."""


class Output(msgspec.Struct, frozen=True):
    """One published file, as results show it."""

    step: str
    path: bytes
    width: int
    height: int
    size_bytes: int


class Work:
    """What an operation works on: the item's image and where its results go."""

    path: bytes = b""
    """The input's path, for operations that open it themselves."""
    keep: bool = True
    """Set to False by a step whose result is not to be kept in the cache: it would be another one another time."""
    leases: Leases | None = None
    models: Models
    """What this worker has loaded: `work.models.use(name, load, expected_bytes)`."""

    def __init__(
        self,
        name: bytes,
        source: Source | None,
        publisher: Publisher | None,
        warn: Callable[[str], None],
        directory: Scratch | None = None,
    ) -> None:
        """`name` is the file's name without its directories; `source` is None for operations that read nothing;
        `directory` is the worker's for temp files."""
        self.name, self.warn = name, warn
        self._directory = directory
        self._step = ""
        self._scratch: TempFileTracker | None = None
        self._source, self._publisher = source, publisher
        self.outputs: list[Output] = []

    @property
    def source(self) -> Source:
        """The image. Only for operations that read its header or pixels."""
        assert self._source is not None, "the operation does not say that it reads the image"
        return self._source

    @property
    def scratch(self) -> TempFileTracker:
        """The temp files of the running step: what it tracks is deleted when the step ends, also by an exception.

        For what is to live longer, `directory.tracker(...)` with the moment it is to end at. Raises OSError.
        """
        if self._scratch is None:
            self._scratch = self.directory.tracker(self._step)
        return self._scratch

    @property
    def directory(self) -> Scratch:
        """The worker's directory for temp files; its `cleanup` takes whatever else is to be put back."""
        assert self._directory is not None, "a worker's directory is there whenever an operation runs in one"
        return self._directory

    def memory(self, size_bytes: int, *, at_least: int | None = None, purpose: str) -> AbstractContextManager[Lease]:
        """Asks for a large piece of memory before it is taken; see `workers.memory_lease`. Raises NoMemory."""
        assert self.leases is not None, "the worker's leases are there whenever an operation runs in one"
        return self.leases.memory(size_bytes, at_least=at_least, purpose=purpose)

    def begin(self, step: str) -> None:
        """A step begins: temp files made from here on are its own. Raises OSError."""
        self._step = step
        if self._directory is not None:
            self._directory.enter(step)

    def end(self) -> None:
        """It is over, however it ended; what could not be deleted becomes a warning."""
        if self._scratch is None:
            return
        scratch, self._scratch = self._scratch, None
        for failure in scratch.close():
            self.warn(f"temp file not deleted: {failure}")

    def publish(self, step: str, label: str, extension: str, image: Image.Image, content: bytes) -> None:
        """Writes an encoded image as an output of `step`. Raises Verdict, MachineTrouble."""
        if self._publisher is None:
            raise Verdict("io", f"the step {step} writes files, but the batch names no output directory (--out)")
        path = self._publisher.publish(label, extension, content)
        self.outputs.append(Output(step, path, image.width, image.height, len(content)))

    def publish_as_is(self, step: str, label: str, header: Header, content: bytes) -> None:
        """Writes a file of the image's own format and size as an output of `step`. Raises Verdict, MachineTrouble."""
        if self._publisher is None:
            raise Verdict("io", f"the step {step} writes files, but the batch names no output directory (--out)")
        extension = {"jpeg": "jpg"}.get(header.format.name, header.format.name)
        path = self._publisher.publish(label, extension, content)
        self.outputs.append(Output(step, path, header.width, header.height, len(content)))


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation, as its module declares it.

    `side(header, parameters)`: the longest side in pixels of the picture it needs (0: none).
    `beside(header, parameters)`: bytes it takes at its peak beside that picture (RGBA).
    `check(parameters)`: raises ValueError for what the type cannot tell.
    `run(work, parameters)`: returns its values (a JSON object) or None.
    """

    name: str
    version: int
    edition: Callable[[Any], str] = lambda parameters: ""
    """What in its parameters makes it another operation, for quarantine: what killed one may do for the other."""
    reads: Reads
    run: Callable[[Work, Any], dict[str, Any] | None]
    parameters: type[Parameters] = Parameters
    side: Callable[[Header, Any], int] = lambda header, parameters: 0
    beside: Callable[[Header, Any], int] = lambda header, parameters: 0
    check: Callable[[Any], None] = lambda parameters: None
    writes: Callable[[Any], list[str]] = lambda parameters: []
    """The labels of its outputs: two steps must not write the same file."""
    cacheable: bool = True
    """Whether its results depend on the image's bytes and its parameters alone."""
    embedded: Callable[[Any], bool] = lambda parameters: False
    """Whether a thumbnail embedded in the image will do."""


def load(name: str) -> Operation:
    """Returns an operation, importing its module. Raises RecipeError when there is none of that name."""
    if name not in MODULES:
        return _load_foreign(name)
    operations: tuple[Operation, ...] = importlib.import_module(MODULES[name]).OPERATIONS
    return next(operation for operation in operations if operation.name == name)


def _load_foreign(name: str) -> Operation:
    others = foreign()
    if name not in others:
        raise RecipeError(f"no operation {name!r}; known: {', '.join(sorted({*MODULES, *others}))}")
    found = third_party.fetch(others[name])
    if not isinstance(found, Operation) or found.name != name:
        raise third_party.not_one(others[name], found)
    return found


def foreign() -> dict[str, EntryPoint]:
    """Returns the operations of other distributions by name. Raises RecipeError where two have one name."""
    return third_party.installed(frozenset(MODULES))
