"""A supervisor for a benchmark: started by the command line in a directory of its own, gone with it afterwards."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from protocol.client import Client
from protocol.errors import NoSupervisor
from protocol.messages import AskCache, BatchProgress, Status
from protocol.paths import to_token
from supervisor.mechanism.state import StateDirectory

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.01


class TooSlow(Exception):
    """Something did not come about in the time it may take."""


def until(fact: Callable[[], bool], what: str, seconds: float = 60.0, pause: float = POLL_SECONDS) -> None:
    """Waits for a fact. Raises TooSlow naming it."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise TooSlow(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


class House:
    """A running supervisor and its client. A context manager."""

    def __init__(self, *flags: str, workers: int = 2, config: str = "") -> None:
        """`flags` are those of `supervisor start`; `config` is the text of its supervisor.toml."""
        self.directory = tempfile.mkdtemp(prefix="bench-")
        try:
            self.state = os.path.join(self.directory, "state")
            self.workers = workers
            toml = os.path.join(self.directory, "supervisor.toml")
            with open(toml, "w", encoding="utf-8") as file:
                file.write(config)
            self._log = open(os.path.join(self.directory, "log"), "wb")  # noqa: SIM115 - the process's, closed with it
            command = [sys.executable, "-m", "supervisor", "start", "--config", toml, "--state", self.state]
            self.process = subprocess.Popen(
                [*command, "--workers", str(workers), *flags],
                cwd=ROOT,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends the supervisor
            )
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def __enter__(self) -> Self:
        try:
            self.client = self._connect()
            self.wait_idle()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._end()

    def status(self) -> Status:
        """Returns the whole pool at this moment."""
        return self.client.status()

    def wait_idle(self) -> None:
        """Waits until every worker is warm and has nothing to do."""
        until(lambda: all(worker.state == "IDLE" for worker in self.status().workers), "all workers idle")

    def run(self, recipe: str, root: str, names: Sequence[str], out: str | None = None) -> float:
        """Returns the seconds from the first submission to the last committed result. Every item must be done, none
        of them found in the cache: see `forget`."""
        began = time.perf_counter()
        name = self.submit(recipe, root, names, out)
        progress = self.finished(name)
        passed = time.perf_counter() - began
        if progress.counts.done != len(names):
            raise AssertionError(f"{len(names)} items, but {progress.counts}")
        return passed

    def run_cached(self, recipe: str, root: str, names: Sequence[str], out: str) -> float:
        """The same where every item must be found in the cache."""
        began = time.perf_counter()
        progress = self.finished(self.submit(recipe, root, names, out))
        passed = time.perf_counter() - began
        if progress.counts.cached != len(names):
            raise AssertionError(f"{len(names)} items to be found in the cache, but {progress.counts}")
        return passed

    def forget(self) -> None:
        """Empties the cache."""
        self.client.request(AskCache(verb="clear"), timeout_seconds=60.0)

    def submit(self, recipe: str, root: str, names: Sequence[str], out: str | None = None) -> str:
        """Submits a batch and returns its name once all of it is acknowledged."""
        token = to_token(os.fsencode(out)) if out is not None else None
        with self.client.open_batch(recipe=recipe, out=token) as batch:
            batch.add(root, names)
        return batch.name

    def finished(self, batch: str, seconds: float = 600.0) -> BatchProgress:
        """Waits for the end of a batch as users do: told by an event. Asking all the time would cost the supervisor
        more than small images do."""
        return self.client.wait(batch, seconds)

    def processes(self) -> list[int]:
        """Returns the pids of the supervisor and all its descendants."""
        return [self.process.pid, *_descendants(self.process.pid)]

    def _connect(self) -> Client:
        address = StateDirectory(self.state)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            endpoint = address.read_endpoint()
            if endpoint is not None:
                client = Client(endpoint.frontend)
                with contextlib.suppress(NoSupervisor):
                    client.hello()
                    return client
                client.close()
            time.sleep(POLL_SECONDS)
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as file:
            raise TooSlow(f"the supervisor did not start: {file.read()[-2000:]}")

    def _end(self) -> None:
        """Its workers die with it, however it ends."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._log.close()
            shutil.rmtree(self.directory, ignore_errors=True)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])
