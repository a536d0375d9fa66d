"""The supervisor inside somebody's program: a plain function over many files, watched like any other work.

    from supervisor import Supervisor

    def brightness(path):
        with Image.open(path) as image:
            return ImageStat.Stat(image.convert("L")).mean[0]

    with Supervisor(workers=4) as supervisor:
        for result in supervisor.map(brightness, paths):
            print(result.path, result.value if result.ok else result.error.message)

It is the same supervisor as on the command line, a child process with its own template, workers, journal, memory
watch and time limits: a function that crashes or leaks takes a worker with it, never the caller, and its file is
retried, then quarantined. A function crosses no socket: it is pickled by value (closures and lambdas too) into the
private state directory before the template starts, which loads it; so a new function restarts the supervisor.
What a function returns travels as JSON: numbers, text, lists, dictionaries, dataclasses.

`sandbox` is off by default: the function is the caller's own code, and may read and write what the caller may.
"""

import hashlib
import os
import pickle
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import dill
import msgspec

from protocol.client import Client
from protocol.errors import BadMessage, NoSupervisor, UsageError
from protocol.kernel import SandboxMode
from protocol.messages import ItemError, ItemState, Results, ResultsPage
from protocol.paths import to_token
from supervisor.cli.own import OwnSupervisor
from supervisor.config import read
from supervisor.mechanism.state import StateDirectory
from supervisor.pressure import PressureCallback, PressureListener, PressureSubscription

PAGE_RESULTS = 200
"""Results asked for at a time: a page that is not full is read again when there is more."""
IDLE = "60s"
"""A caller that was killed stops nothing: its supervisor leaves by itself after that time without work."""
DEATHS_ALLOWED = 3
"""So many times in a row, without a result between, a supervisor that was killed is started again."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one file; `path` is the path as it was given to `map`, `value` what the function returned.

    `state` is done, failed (the function raised, or the file is gone), quarantined (it killed its workers) or
    cancelled; `error` says why where it is not done. `peak_bytes` is the peak of the worker's memory meanwhile.
    """

    path: str
    state: ItemState
    value: Any = None
    error: ItemError | None = None
    attempts: int = 1
    seconds: float = 0.0
    peak_bytes: int = 0
    worker: int | None = None
    warnings: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.state == "done"


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of results, as far as it is needed here."""

    path: str
    path_b64: str | None = None
    state: ItemState
    error: ItemError | None
    attempts: int
    values: dict[str, Any]
    seconds: float
    peak_bytes: int
    worker: int | None
    warnings: list[str]

    @property
    def token(self) -> str:
        """The path token."""
        return self.path if self.path_b64 is None else f"//base64:{self.path_b64}"


class Supervisor:
    """A supervisor of one's own. A context manager; at its end the supervisor is stopped.

    `workers`: processes (default: the usable cores). `memory`: what all of it may use, as on the command line
    (`"512M"`). `item_timeout_seconds`: the longest one call may take. `state`: a directory to keep; without it a
    temporary one is used. `settings`: any other setting by its name on the command line
    (`{"batch-size-max": "16"}`). Raises UsageError for settings that make no sense.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        memory: str | None = None,
        item_timeout_seconds: float | None = None,
        state: str | os.PathLike[str] | None = None,
        sandbox: SandboxMode = "off",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._temporary = None if state is not None else tempfile.TemporaryDirectory(prefix="gallery-supervisor-")
        top = self._temporary.name if self._temporary is not None else os.path.abspath(os.fspath(state or ""))
        self._state = os.path.join(top, "state") if self._temporary is not None else top
        given = {"workers": workers, "memory": memory, "item-timeout": item_timeout_seconds, "sandbox": sandbox}
        self._flags = {name: str(value) for name, value in given.items() if value is not None}
        self._config = os.path.join(self._state, "embedded.toml")
        self._flags |= {"exit-when-idle": IDLE, **(settings or {}), "state": self._state, "config": self._config}
        self._recipes: dict[str, tuple[str, str]] = {}
        """Recipe: (file of the function, its digest)."""
        self._own: OwnSupervisor | None = None
        self._client: Client | None = None
        self._pressure = PressureListener(self._endpoint)
        self._maps = 0
        """Maps being iterated: a function that is new has to wait for them."""
        try:
            self._write_config()
            read(self._flags).config(usable_cores=1)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(now=kind is not None)

    def close(self, now: bool = False) -> None:
        """Stops the supervisor, after the files in progress unless `now`; deletes a temporary state. Idempotent."""
        self._pressure.close()
        self._stop(now)
        if self._temporary is not None:
            self._temporary.cleanup()

    def map(
        self, function: Callable[[str], Any], paths: Iterable[str | os.PathLike[str]], *, ordered: bool = True
    ) -> Iterator[Result]:
        """Calls the function with each path, in workers; yields a result for each, as soon as it is its turn, or, not
        `ordered`, as soon as it is there. A path that comes twice is worked on once.

        The paths are read, and the work begins, before this returns. Raises UsageError for a function that
        cannot be pickled or loaded, and for a new one while another map is under way.
        """
        recipe = self._prepare(function)
        given = [os.fspath(path) for path in paths]
        tokens = [to_token(os.path.abspath(path)) for path in given]
        batch = self._submit(recipe, given)
        rows = self._rows(batch)
        return _in_order(given, tokens, rows) if ordered else _as_they_come(given, tokens, rows)

    def on_pressure(self, callback: PressureCallback) -> PressureSubscription:
        """Has `callback` called, in a thread of its own, with each new memory level of the supervisor: normal,
        elevated, warning, critical, emergency or protection. `unsubscribe()` of what is returned ends that. One that
        raises is told in a warning and passed over, and unsubscribed after three failures in a row."""
        return self._pressure.subscribe(callback)

    def _endpoint(self) -> str | None:
        found = StateDirectory(self._state).read_endpoint()
        return found.frontend if found is not None else None

    def _submit(self, recipe: str, given: list[str]) -> str:
        """Returns the batch. A supervisor that left just now, because it was idle, is started again."""
        name = f"map-{uuid.uuid4().hex[:12]}"
        names = [to_token(os.path.abspath(path)[1:]) for path in given]
        for last in (False, True):
            try:
                with self._connected().open_batch(batch=name, recipe=recipe) as batch:
                    batch.add("/", names)
                break
            except NoSupervisor:
                if last:
                    raise
        return name

    # ---- functions -------------------------------------------------------------------------------

    def _prepare(self, function: Callable[[str], Any]) -> str:
        """Returns the name of the recipe that calls the function, known to the supervisor that runs."""
        content = _pickled(function)
        digest = hashlib.sha256(content).hexdigest()
        name = f"call-{digest[:16]}"
        if name in self._recipes:
            return name
        if self._maps:
            raise UsageError("another map is under way: a new function restarts the supervisor, finish that map first")
        self._stop(now=False)
        file = os.path.join(self._state, f"{name}.pickle")
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
            opened.write(content)
        self._recipes[name] = (file, digest)
        self._write_config()
        try:
            self._connected()
        except BaseException:
            del self._recipes[name]
            self._write_config()
            raise
        return name

    def _write_config(self) -> None:
        os.makedirs(self._state, mode=0o700, exist_ok=True)
        lines = []
        for name, (file, digest) in self._recipes.items():
            quoted = msgspec.json.encode(file).decode()
            step = f'{{ operation = "function", file = {quoted}, digest = "{digest}" }}'
            lines.append(f"[recipes.{name}]\nsteps = [{step}]")
        with open(self._config, "w", encoding="utf-8") as opened:
            opened.write("\n".join(lines) + "\n")

    # ---- the supervisor --------------------------------------------------------------------------

    def _connected(self) -> Client:
        if self._own is not None and self._own.has_died():
            self._stop(now=True)
        if self._client is None:
            self._own = OwnSupervisor(read(self._flags), self._flags)
            self._client = Client(self._own.start())
        return self._client

    def _stop(self, now: bool) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._own is not None:
            self._own.stop(now)
            self._own = None

    def _rows(self, batch: str) -> Iterator[_Row]:
        """Yields the results of a batch as they come; a supervisor that was killed is started again."""
        page = _Pages(batch)
        deaths = 0
        self._maps += 1
        try:
            while True:
                try:
                    client = self._connected()
                    for progress in client.iter_progress(batch):
                        for row in page.read(client):
                            deaths = 0
                            yield row
                        if progress.state in ("finished", "cancelled"):
                            return
                except NoSupervisor:
                    deaths += 1
                    if deaths > DEATHS_ALLOWED:
                        raise
        finally:
            self._maps -= 1


class _Pages:
    """Reads a batch's results from where it stopped last."""

    def __init__(self, batch: str) -> None:
        self._batch = batch
        self._after = 0
        self._seen = 0
        """Rows of the page after `_after` that were yielded: it was not full then, and has no end to go on from."""

    def read(self, client: Client) -> Iterator[_Row]:
        """Yields what has settled since."""
        while True:
            page = client.request(Results(batch=self._batch, after=self._after, limit=PAGE_RESULTS))
            if not isinstance(page, ResultsPage):
                raise BadMessage(f"the supervisor answered Results with {type(page).__name__}")
            for raw in page.results[self._seen :]:
                self._seen += 1
                yield msgspec.json.decode(bytes(raw), type=_Row)
            if page.next is None:
                return
            self._after, self._seen = page.next, 0


def _pickled(function: Callable[[str], Any]) -> bytes:
    """Returns the function by value, with the module search path for what it refers to by name."""
    if not callable(function):
        raise UsageError(f"a function of one path is needed, not {function!r:.80}")
    try:
        by_value = dill.dumps(function, recurse=True)
    except Exception as error:  # whatever the closure holds: a lock, a socket, an open file
        raise UsageError(
            f"the function {getattr(function, '__qualname__', function)!s:.80} cannot be shipped to workers: "
            f"{type(error).__name__}: {error}"
        ) from error
    return pickle.dumps(([path or os.getcwd() for path in sys.path], by_value))


def _result(path: str, row: _Row) -> Result:
    return Result(
        path=path, state=row.state, value=row.values.get("function", {}).get("value"), error=row.error,
        attempts=row.attempts, seconds=row.seconds, peak_bytes=row.peak_bytes, worker=row.worker,
        warnings=row.warnings,
    )  # fmt: skip


def _in_order(given: list[str], tokens: list[str], rows: Iterator[_Row]) -> Iterator[Result]:
    left = Counter(tokens)
    waiting: dict[str, _Row] = {}
    for path, token in zip(given, tokens, strict=True):
        while token not in waiting:
            row = next(rows)
            waiting[row.token] = row
        yield _result(path, waiting[token])
        left[token] -= 1
        if not left[token]:
            del waiting[token]
    for _ in rows:  # to its end, so that the map is over
        pass


def _as_they_come(given: list[str], tokens: list[str], rows: Iterator[_Row]) -> Iterator[Result]:
    paths: dict[str, list[str]] = {}
    for path, token in zip(given, tokens, strict=True):
        paths.setdefault(token, []).append(path)
    for row in rows:
        yield from (_result(path, row) for path in paths[row.token])
