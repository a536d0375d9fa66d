"""Real worker processes and the ends of them that a supervisor holds, for tests; it waits on facts, never on time."""

import contextlib
import os
import select
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from protocol import codec, recorder, sockets
from protocol.launch import TemplatePlan, WorkerStart
from protocol.messages import AnyFromWorker, AnyToWorker, Grant, Granted, Recipe, Report, Root, Step
from supervisor.mechanism.processes import Processes, WorkerProcess

DEADLINE_SECONDS = 10.0
"""Far above what anything here takes; reaching it is the failure."""

SLOTS = 4

Said = TypeVar("Said", bound=AnyFromWorker)


def recipe(operation: str, **parameters: object) -> Recipe:
    """Returns a recipe of one step."""
    return Recipe(name=operation, steps=[Step(operation=operation, parameters=parameters)])


def ended(process: "WorkerProcess | int", seconds: float = DEADLINE_SECONDS) -> bool:
    """Waits until a process (or what a pidfd stands for) has ended."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))


def wait_until(fact: Callable[[], bool], what: str) -> None:
    """Waits until a fact that nothing announces has become true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not fact():
        assert time.monotonic() < deadline, f"after {DEADLINE_SECONDS:g} s still not: {what}"
        select.select([], [], [], 0.002)


class RealPool:
    """A template, its workers, and the router they talk to."""

    def __init__(
        self, directory: str, recipes: list[Recipe] | None = None, entry: str = "workers.entry", **settings: Any
    ) -> None:
        self.directory = directory
        self.endpoint = f"ipc://{directory}/backend"
        self.recorder_path = os.path.join(directory, "recorder")
        recorder.create(self.recorder_path, SLOTS)
        self.plan = TemplatePlan(
            supervisor_pid=os.getpid(), recipes=recipes or [], report_path=os.path.join(directory, "template-report")
        )
        self.processes = Processes(run_directory=directory, plan=self.plan, entry=entry, **settings)
        self.workers: list[WorkerProcess] = []
        self.leases = 0
        self.photos = os.path.join(directory, "photos")
        os.mkdir(self.photos)
        self._context = sockets.new_context()
        self.router = sockets.router_socket(self._context, self.endpoint)

    def start(self, slot: int = 0, *, endpoint: str | None = None, **settings: Any) -> WorkerProcess:
        """Starts the next worker; its incarnation counts up from 1."""
        incarnation = len(self.workers) + 1
        start = WorkerStart(
            slot=slot,
            incarnation=incarnation,
            backend_endpoint=endpoint or self.endpoint,
            recorder_path=self.recorder_path,
            death_pipe_path=self.processes.death_pipe_path,
            life_lock_path=self.processes.life_lock_path,
            temp_directory=os.path.join(self.directory, f"temp-{incarnation}"),
            state_token="0badcafe",
            template_pid=0,
            **settings,
        )
        worker = self.processes.start(start)
        self.workers.append(worker)
        return worker

    def temp_of(self, worker: WorkerProcess) -> str:
        """Returns the temp directory of a worker, which has made it and added its label."""
        (name,) = [name for name in os.listdir(self.directory) if name.startswith(f"temp-{worker.incarnation}-")]
        return os.path.join(self.directory, name)

    def receive(self, kind: type[Said]) -> Said:
        """Waits for the next message of a kind; others are passed over."""
        while sockets.wait_readable(self.router, DEADLINE_SECONDS):
            frames = sockets.receive(self.router)
            assert frames is not None
            message = codec.decode_from_worker(frames[1])
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} in {DEADLINE_SECONDS:g} s")

    def tell(self, worker: WorkerProcess, message: AnyToWorker) -> None:
        """Sends a message to a worker that has said something."""
        self.tell_frames(worker, [codec.encode(message)])

    def tell_frames(self, worker: WorkerProcess, frames: list[bytes]) -> None:
        """Sends bytes to a worker."""
        identity = f"{worker.slot}.{worker.incarnation}".encode()
        assert sockets.send(self.router, [identity, *frames]) is sockets.Sent.SENT

    def grant(self, worker: WorkerProcess, work: Recipe, stems: list[str], **other: Any) -> int:
        """Grants a lease of items 1, 2, … (files in `photos`, made when missing); returns its number."""
        self.leases += 1
        for stem in stems:
            with open(os.path.join(self.photos, stem), "ab"):
                pass
        settings: dict[str, Any] = {
            "batch": "b1", "out": None, "overwrite": False, "strict": False, "submitted_at": 0.0,
            "memory_bytes": 1 << 40, "roots": [Root(self.photos, "")],
            "items": [Granted(number, 0, stem) for number, stem in enumerate(stems, 1)],
        } | other  # fmt: skip
        self.tell(worker, Grant(lease=self.leases, recipe=work, **settings))
        return self.leases

    def reports(self, lease: int) -> list[Report]:
        """Waits until a lease is finished; returns all its reports."""
        found: list[Report] = []
        while not found or not found[-1].finished:
            report = self.receive(Report)
            if report.lease == lease:
                found.append(report)
        return found

    def close(self) -> None:
        """Ends everything and lets every descriptor go."""
        self.processes.close()
        for worker in self.workers:
            worker.kill()
            assert ended(worker)
            worker.close()
        sockets.destroy_context(self._context)


@contextlib.contextmanager
def real_pool(recipes: list[Recipe] | None = None, entry: str = "workers.entry", **settings: Any) -> Iterator[RealPool]:
    """Gives a pool in a directory whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="gs-") as directory:
        pool = RealPool(directory, recipes, entry, **settings)
        try:
            yield pool
        finally:
            pool.close()
