"""A bed for the whole: a state directory, photos, outputs, and supervisors started by the command line.

What is started here is a real process and is killed at the end, whatever the test did. Tests wait on facts with a
deadline (`wait_for`), never for a time.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from protocol.client import Client
from protocol.messages import BatchProgress
from protocol.sockets import is_listening
from supervisor.mechanism.state import StateDirectory
from tests.galleries import small_jpeg, write

DEADLINE_SECONDS = 30.0
"""Far above what anything here takes; reaching it is the failure."""
LOOK_SECONDS = 0.005
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMAND = (sys.executable, "-P", "-m", "supervisor")

T = TypeVar("T")


def wait_for(fact: Callable[[], T], what: str, seconds: float = DEADLINE_SECONDS) -> T:
    """Waits until a fact is true and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still not: {what}")
        select.select([], [], [], LOOK_SECONDS)
    return found


def lives(pid: int) -> bool:
    """Tells whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> set[int]:
    """Returns the pids of all processes below one."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found: set[int] = set()
    grew = True
    while grew:
        below = {child for child, parent in parents.items() if parent == pid or parent in found}
        grew = bool(below - found)
        found |= below
    return found


class Ended(NamedTuple):
    """A command that is over."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The last line of standard output, as JSON."""
        row: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return row

    @property
    def rows(self) -> list[Any]:
        """Every line of standard output, as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """A command that runs."""

    def __init__(self, words: Sequence[str | bytes], environment: dict[str, str], prefix: Sequence[str] = ()) -> None:
        self.words = words
        self._out, self._err = (os.fdopen(os.memfd_create(name), "w+b") for name in ("out", "err"))
        self.process = subprocess.Popen(
            [*prefix, *COMMAND, *words], env=environment, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err,
            cwd="/", start_new_session=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def said(self) -> str:
        """What it wrote to standard error so far."""
        size = os.fstat(self._err.fileno()).st_size
        return os.pread(self._err.fileno(), size, 0).decode("utf-8", "replace")

    def printed(self) -> str:
        """What it wrote to standard output so far."""
        size = os.fstat(self._out.fileno()).st_size
        return os.pread(self._out.fileno(), size, 0).decode("utf-8", "surrogateescape")

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = DEADLINE_SECONDS) -> Ended:
        """Waits for its end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.words!r} has not ended after {seconds:g} s; it said:\n{self.said()}") from None
        return Ended(self.process.returncode, self.printed(), self.said())

    def close(self) -> None:
        """Kills it if need be."""
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()


class Bed:
    """The directories of one test, and what runs on them."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.state = os.path.join(directory, "s")
        self.photos = os.path.join(directory, "photos")
        self.out = os.path.join(directory, "out")
        self.config = os.path.join(directory, "supervisor.toml")
        self.prefix: Sequence[str] = ()
        """Put before every command (a shell that enters a control group, a umask)."""
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("SUPERVISOR_")}
        self.environment |= {
            "PYTHONPATH": ROOT, "SUPERVISOR_STATE": self.state, "SUPERVISOR_CONFIG": self.config,
            "SUPERVISOR_WORKERS": "2", "SUPERVISOR_DRAIN": "5s", "PYTHONWARNINGS": "error",
            "SUPERVISOR_CACHE": "no",  # drills run the same images again and want them worked on
        }  # fmt: skip
        self._commands: list[Command] = []
        self._clients: list[Client] = []
        self.write_config()
        os.mkdir(self.photos)

    def write_config(self, **recipes: list[dict[str, Any]]) -> None:
        """Writes supervisor.toml with these recipes: lists of steps."""
        lines = [f"[recipes.{name}]\nsteps = [{', '.join(map(_inline, steps))}]" for name, steps in recipes.items()]
        with open(self.config, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def fill(self, count: int, side: int = 64, directory: str | None = None) -> list[str]:
        """Puts `count` sound small JPEGs among the photos (a few different ones, again and again); their names."""
        several = [small_jpeg(seed, side) for seed in range(min(count, 8))]
        names = [f"p{number:05d}.jpg" for number in range(count)]
        for number, name in enumerate(names):
            write(directory or self.photos, name, several[number % len(several)])
        return names

    def photo(self, name: str) -> str:
        """Returns the path of a photo."""
        return os.path.join(self.photos, name)

    def command(self, *words: str | bytes, **settings: str) -> Command:
        """Starts a command; settings are variables without SUPERVISOR_."""
        environment = self.environment | {f"SUPERVISOR_{name.upper()}": value for name, value in settings.items()}
        command = Command(words, environment, self.prefix)
        self._commands.append(command)
        return command

    def run(self, *words: str | bytes, seconds: float = DEADLINE_SECONDS, **settings: str) -> Ended:
        """Runs a command to its end."""
        return self.command(*words, **settings).wait(seconds)

    def start(self, *words: str, ready: bool = True, **settings: str) -> Command:
        """Starts a supervisor and waits until it listens."""
        command = self.command("start", *words, **settings)
        if ready:
            wait_for(lambda: self.serves(command.pid) or not command.running, "the supervisor listens")
            assert command.running, f"the supervisor ended at once and said:\n{command.said()}"
        return command

    def serves(self, pid: int | None = None) -> bool:
        """Tells whether a supervisor (of that pid) listens on the state directory."""
        endpoint = StateDirectory(self.state).read_endpoint()
        return endpoint is not None and pid in (None, endpoint.pid) and is_listening(endpoint.frontend)

    def supervisor_pid(self) -> int | None:
        """Returns the pid of whoever holds the state directory."""
        return StateDirectory(self.state).holder()

    @property
    def endpoint(self) -> str:
        """Where the supervisor listens."""
        endpoint = StateDirectory(self.state).read_endpoint()
        assert endpoint is not None
        return endpoint.frontend

    def client(self) -> Client:
        """Returns a new client of the supervisor."""
        client = Client(self.endpoint)
        self._clients.append(client)
        return client

    def submit(self, client: Client, names: Sequence[str], **fields: Any) -> str:
        """Submits photos by name; returns the batch."""
        fields = {"out": self.out} | fields
        with client.open_batch(**fields) as batch:
            batch.add(self.photos, names)
        return batch.name

    def results(self, client: Client, batch: str) -> dict[str, dict[str, Any]]:
        """Returns the results of a batch by the name of the photo."""
        return {os.path.basename(row["path"]): row for row in client.iter_results(batch)}

    def outputs(self, directory: str | None = None) -> set[str]:
        """Returns every file below OUT, relative to it."""
        top = directory or self.out
        found = set()
        for where, _, names in os.walk(top):
            found |= {os.path.relpath(os.path.join(where, name), top) for name in names}
        return found

    def close(self) -> None:
        """Ends everything."""
        for client in self._clients:
            client.close()
        for command in self._commands:
            command.close()
        holder = self.supervisor_pid()
        if holder is not None:  # one that a `run` had started for itself
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, signal.SIGKILL)
            wait_for(lambda: not lives(holder), "the supervisor is gone")


def settled(progress: BatchProgress) -> int:
    """Returns how many items of a batch have their verdict."""
    counts = progress.counts
    return counts.done + counts.cached + counts.failed + counts.quarantined + counts.cancelled


def _inline(step: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in step.items()) + " }"


@contextlib.contextmanager
def make_bed(below: str | None = None) -> Iterator[Bed]:
    """Gives a bed in a directory (below a given one) whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="gs-", dir=below, ignore_cleanup_errors=True) as directory:
        bed = Bed(directory)
        try:
            yield bed
        finally:
            bed.close()
