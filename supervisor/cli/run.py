"""`run`: a job from start to summary.

Joins the supervisor that owns the state directory, or starts one for the job; a supervisor of its own that is
killed on the way is started again. The batch is on disk: whatever ends this command, the same command
goes on with it.
"""

import argparse
import signal
import time
from types import FrameType

from protocol.client import Client, OpenedBatch
from protocol.errors import NoSupervisor
from protocol.messages import BatchProgress
from protocol.sockets import is_listening
from supervisor.cli.find import endpoint_of
from supervisor.cli.options import Verb, flags_of
from supervisor.cli.output import print_json, say
from supervisor.cli.own import OwnSupervisor
from supervisor.cli.start import START_SETTINGS
from supervisor.cli.submission import Job, Submitted, add_job_arguments, check_recipe, read_job, submit
from supervisor.cli.tell import Bar, exit_code_of, say_summary, summary_row
from supervisor.config import Reading, read
from supervisor.naming import Listing
from supervisor.recipes import all_recipes

SUPERVISOR_RESTARTS = 5
"""So many times a killed supervisor is started again for one job; more often means that it cannot run here."""
BETWEEN_SECONDS = 0.25
_EXAMPLES = """  supervisor run photos --out thumbs
  supervisor run photos more/*.jpg --out thumbs --recipe web --workers 4 --memory 1G --json"""


def _configure(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    reading = read(flags_of(arguments), START_SETTINGS | {"recipe"})
    reading.config(usable_cores=1)  # a wrong setting is told here and now, not in the log of a child
    job = read_job(arguments, reading.values["recipe"])
    check_recipe(job, all_recipes(reading.user_recipes))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    return _Run(arguments, reading, job).execute()


class _Run:
    def __init__(self, arguments: argparse.Namespace, reading: Reading, job: Job) -> None:
        self._json: bool = arguments.json
        self._reading = reading
        self._job = job
        self._own = OwnSupervisor(reading, flags_of(arguments))
        self._opened: OpenedBatch | None = None
        self._submitted: Submitted | None = None
        self._last: BatchProgress | None = None
        self._resumed = False
        self._restarts = 0

    def execute(self) -> int:
        """Returns the exit code, once the supervisor of this job is gone again."""
        try:
            self._work_until_done()
        except KeyboardInterrupt:
            if self._opened is None:
                say("interrupted before anything was submitted")
            self._say_kept("interrupted")
            self._own.stop()
            return 130
        except NoSupervisor:
            self._say_kept("the supervisor is gone")
            raise
        finally:
            self._own.stop()
        assert self._last is not None
        if self._json:
            print_json(summary_row(self._last))
        return exit_code_of(self._last)

    def _work_until_done(self) -> None:
        while True:
            try:
                with Client(self._endpoint()) as client, Bar() as bar:
                    self._submit(client, bar)
                    progress = self._follow(client, bar)
                    bar.close()
                    say_summary(client, progress, resumed=self._resumed)
                    self._leave_to_others(client)
                    return
            except NoSupervisor:
                if not self._may_restart():
                    raise
                say("the supervisor died; starting it again, nothing it accepted is lost")

    def _endpoint(self) -> str:
        endpoint = endpoint_of(self._reading)
        if endpoint is not None and is_listening(endpoint):
            if self._reading.sources["workers"] != "default" or self._reading.sources["memory"] != "default":
                say("joining the supervisor that runs here already: --workers and --memory are its own")
            return endpoint
        return self._own.start()

    def _may_restart(self) -> bool:
        """A supervisor of ours that died is started again, unless what it has to be told can be read but once."""
        once = any(isinstance(source, Listing) and source.path == "-" for source in self._job.sources)
        if not self._own.has_died() or (self._submitted is None and once and self._opened is not None):
            return False
        self._restarts += 1
        return self._restarts <= SUPERVISOR_RESTARTS

    def _submit(self, client: Client, bar: Bar) -> None:
        if self._submitted is not None:
            return
        shown_at = 0.0

        def between() -> None:
            nonlocal shown_at
            if self._opened is not None and time.monotonic() - shown_at >= BETWEEN_SECONDS:
                bar.show(client.progress(self._opened.name))
                shown_at = time.monotonic()

        self._submitted = submit(
            client, client.hello(), self._job, resume=True, opened=self._tell_opened, between=between
        )

    def _tell_opened(self, batch: OpenedBatch) -> None:
        if batch.resumed and self._opened is None:
            self._resumed = True
            say(f"going on with the unfinished batch {batch.name}")
        self._opened = batch

    def _follow(self, client: Client, bar: Bar) -> BatchProgress:
        assert self._submitted is not None
        for progress in client.iter_progress(self._submitted.batch):
            self._last = progress
            bar.show(progress)
        assert self._last is not None
        return self._last

    def _leave_to_others(self, client: Client) -> None:
        """Who joined our supervisor in the meantime keeps it until that work is done."""
        unfinished = [row.batch for row in client.batches() if row.state not in ("finished", "cancelled")]
        if self._own.is_ours and unfinished:
            say(f"the supervisor goes on with {', '.join(unfinished)}, and leaves when it is idle")
            self._own.leave()

    def _say_kept(self, why: str) -> None:
        if self._opened is not None:
            say(f"{why}: batch {self._opened.name} is kept; the same command goes on with it")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


VERBS = {"run": Verb(_configure, _run, START_SETTINGS | {"recipe"}, examples=_EXAMPLES)}
