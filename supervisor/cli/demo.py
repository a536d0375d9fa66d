"""`demo`: a gallery made by code, worked through under a small budget while things go wrong on purpose.

The same parts as `run`: a supervisor of its own on a state directory of its own, the same client, the same
journal read afterwards. Only the trouble is arranged: an image that crashes its worker, an operation that leaks,
files that are no images, a giant, and a worker killed from outside on the way. What is told comes from the
decisions and results alone (`demo_story`); where something promised did not happen, it says so and exits with 1.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import FrameType
from typing import Any

import msgspec

from protocol.client import Client
from protocol.errors import MachineError
from protocol.messages import BatchProgress, Decision, Decisions, Events, WorkerStatus
from supervisor.cli.demo_story import Seen, Story, unsound_outputs
from supervisor.cli.find import Answerer, OfflineAnswerer, ask, iter_results
from supervisor.cli.options import Verb, flags_of
from supervisor.cli.output import print_json, say
from supervisor.cli.own import OwnSupervisor, child_environment
from supervisor.cli.submission import Job, submit
from supervisor.cli.tell import Bar, settled_of
from supervisor.config import Reading, read
from supervisor.mechanism.memory import open_process
from supervisor.naming import Directory
from supervisor.policy.sizes import MB, human
from supervisor.values import parse_size

IMAGES = 100
"""Some ten seconds of work on two cores: enough for a leak to show, well under a minute on slower ones."""
GIANT_MEGAPIXELS = 120
WORKERS = "4"
MEMORY = "400M"
OWN_BYTES = 150 * MB
"""About what the supervisor, the template and four warm workers take: what is left of the budget is for images."""
LEAKED_SHARES = 2.0
"""Over the whole run a worker would leak this many times its share of the budget."""
MAKE_SECONDS = 120.0
KILL_AFTER_SHARE = 0.25
"""When so much has settled, a busy worker is killed: by then all are warm and nothing is nearly over."""
CRASHING = "crashes-its-worker.jpg"
RECIPE = """\
# The demo's recipe: two thumbnails, and operations that misbehave on purpose.
[recipes.demo]
steps = [
  {{ operation = "misbehave.crash", only = "{crashing}" }},
  {{ operation = "thumbnail", sizes = [256, 1024], format = "webp", quality = 80 }},
  {{ operation = "misbehave.leak", bytes = {leak} }},
]
"""
_EXAMPLES = """  supervisor demo
  supervisor demo --keep --workers 2 --memory 300M"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="keep the gallery, outputs and state to look at")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.config is not None:
        say("note: the demo brings its own settings; --config is not read")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    for name in [name for name in os.environ if name.startswith("SUPERVISOR_")]:
        del os.environ[name]  # the demo is the same whatever is set for real work
    flags = {key: value for key, value in flags_of(arguments).items() if key != "config"}
    directory = tempfile.mkdtemp(prefix="supervisor-demo-")
    try:
        return _Demo(directory, {"workers": WORKERS, "memory": MEMORY, **flags}, arguments).execute()
    finally:
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)


class _Demo:
    def __init__(self, directory: str, flags: dict[str, str], arguments: argparse.Namespace) -> None:
        self._directory = directory
        self._json: bool = arguments.json
        self._keep: bool = arguments.keep
        self._gallery, self._out, self._state, config = (
            os.path.join(directory, name) for name in ("gallery", "out", "state", "supervisor.toml")
        )
        self._flags = {**flags, "state": self._state, "config": config}
        leak = LEAKED_SHARES * max(0, (parse_size(self._flags["memory"]) or 0) - OWN_BYTES) / IMAGES
        with open(config, "w", encoding="utf-8") as file:
            file.write(RECIPE.format(leak=max(MB, int(leak)), crashing=CRASHING))
        self._reading: Reading = read(self._flags)
        self._reading.config(usable_cores=1)
        self._leak_bytes = max(MB, int(leak))
        self._killed: WorkerStatus | None = None
        self._largest_batch = 1

    def execute(self) -> int:
        """Returns 0 when all that is promised happened, 1 when not, 130 when interrupted."""
        files = self._make_gallery()
        own = OwnSupervisor(self._reading, self._flags)
        try:
            with Client(own.start()) as client, Bar() as bar:
                progress = self._work(client, bar)
        except KeyboardInterrupt:
            say("interrupted")
            own.stop(now=True)
            return 130
        finally:
            own.stop()
        story = Story(self._look(files, progress))
        if self._json:
            print_json({**story.row(), "directory": self._directory if self._keep else None})
        else:
            for line in story.lines():
                print(line)
            sys.stdout.flush()
            self._say_what_next(progress)
        return 0 if story.kept else 1

    def _make_gallery(self) -> list[str]:
        """Makes the gallery in a process of its own: decoders are the workers' matter. Raises MachineError."""
        command = [sys.executable, "-P", "-m", "workers.specimens", self._gallery, f"--count={IMAGES}"]
        command.append(f"--giant-megapixels={GIANT_MEGAPIXELS}")
        try:
            made = subprocess.run(command, capture_output=True, timeout=MAKE_SECONDS, env=child_environment())
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"the gallery was not made within {MAKE_SECONDS:.0f} s; this machine is too busy"
            ) from None
        if made.returncode != 0:
            last = made.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise MachineError(f"the gallery could not be made (exit code {made.returncode}): {last[0]}")
        names = sorted(os.listdir(self._gallery))
        size = sum(os.path.getsize(os.path.join(self._gallery, name)) for name in names)
        say(
            f"A gallery of {len(names)} files, {human(size)}: photos, a giant of {GIANT_MEGAPIXELS} megapixels, "
            "broken files, files that are no images.\n"
            f"Two thumbnails of each, by {self._reading.values['workers']} workers in a budget of "
            f"{human(self._reading.values['memory'])}. Arranged on purpose: each image leaks "
            f"{human(self._leak_bytes)},\n{CRASHING} crashes its worker, and one worker is killed from outside.\n"
        )
        return names

    def _work(self, client: Client, bar: Bar) -> BatchProgress:
        job = Job(
            sources=[Directory(root=os.fsencode(self._gallery))], recipe="demo", out=os.fsencode(self._out), base=None,
            overwrite=False, strict=False, priority=0,
        )  # fmt: skip
        submitted = submit(client, client.hello(), job, opened=lambda batch: None)
        progress = None
        for progress in client.iter_progress(submitted.batch, every_seconds=0.05):
            bar.show(progress)
            self._largest_batch = max(self._largest_batch, *progress.batch_sizes, 1)
            if self._killed is None and settled_of(progress.counts) >= progress.items * KILL_AFTER_SHARE:
                self._killed = _kill_one(client)
        assert progress is not None
        return progress

    def _look(self, files: list[str], progress: BatchProgress) -> Seen:
        """Reads what is on disk now that the supervisor is gone: its journal and the outputs."""
        with OfflineAnswerer(self._state) as answerer:
            results: list[dict[str, Any]] = [msgspec.json.decode(raw) for raw in iter_results(answerer, progress.batch)]
            decisions: list[Decision] = list(iter_decisions(answerer))
        missing, strange = unsound_outputs(self._out, results)
        return Seen(
            gallery=self._gallery, files=files, results=results, decisions=decisions, progress=progress,
            killed=self._killed, workers=self._reading.values["workers"], crashing=CRASHING,
            missing=missing, strange=strange, largest_batch=self._largest_batch,
        )  # fmt: skip

    def _say_what_next(self, progress: BatchProgress) -> None:
        if self._keep:
            state = f"--state {self._state}"
            say(
                f"\nKept in {self._directory}. To look at it:\n"
                f"  supervisor results {progress.batch} {state}\n"
                f"  supervisor why worker 0 {state}\n"
                f"  supervisor quarantine show {os.path.join(self._gallery, CRASHING)} {state}"
            )
        else:
            say("\nAll of it is removed again (--keep keeps it, to look at every decision with its figures).")
        say("Now yours: supervisor run PHOTOS --out THUMBS")


def iter_decisions(answerer: Answerer) -> Iterator[Decision]:
    """Yields every decision that is kept, oldest first."""
    after = 0
    while found := ask(answerer, Events(after=after), Decisions).decisions:
        yield from found
        after = found[-1].number


def _kill_one(client: Client) -> WorkerStatus | None:
    """Kills the busy worker that is farthest from its own memory limit, as a careless stranger would; None where
    none could be had now. One that is near its limit is spared: a SIGKILL there is taken for the kernel's. It is held
    while its memory is looked at again, or it could grow in between."""
    busy = [worker for worker in client.status().workers if worker.state == "BUSY" and worker.pid and worker.soft_bytes]
    for worker in sorted(busy, key=lambda one: one.rss_bytes - one.soft_bytes):
        assert worker.pid is not None
        try:
            os.kill(worker.pid, signal.SIGSTOP)
            number = signal.SIGKILL if _is_slim(client, worker) else signal.SIGCONT
            os.kill(worker.pid, number)
        except ProcessLookupError:
            continue  # it was recycled since
        if number == signal.SIGKILL:
            return worker
    return None


def _is_slim(client: Client, held: WorkerStatus) -> bool:
    """Tells whether a worker that is held is at work and below its soft limit: when it was seen last, and now."""
    seen = next((one for one in client.status().workers if one.pid == held.pid), None)
    now = open_process(held.pid or 0)
    if now is None:
        return False
    try:
        sample = now.sample()
    finally:
        now.close()
    if seen is None or seen.state != "BUSY" or sample is None:
        return False
    return max(seen.rss_bytes, sample.rss_bytes) < seen.soft_bytes


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


VERBS = {"demo": Verb(_configure, _run, frozenset({"workers", "memory"}), examples=_EXAMPLES)}
