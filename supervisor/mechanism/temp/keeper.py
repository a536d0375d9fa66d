"""The thread that keeps the temp root: the dead are taken out of sight first, everything else is done in turns.

A turn deletes or counts for at most TURN_SECONDS; between turns the inbox is looked at, so that the directory of a
worker that dies while 100,000 files are being deleted is gone as fast as any other. What is very large goes to a
process of its own, which is only looked at. A directory whose lock is still
held (a process the worker left behind, or a cleaner of the system's) is tried again until it is free.
"""

import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from protocol.messages import AnyAnswer, Problem, Store, TempReap, TempReport, TempStats, TempUsage
from protocol.paths import to_token
from protocol.temp_name import TempName, parse, start_ticks, stem
from supervisor.mechanism.temp.directory import Held, lock_alone
from supervisor.mechanism.temp.reaper import Job, Reaper
from supervisor.mechanism.temp.root import TempRoot
from supervisor.mechanism.temp.survey import Usage, candidates, measure, process_of
from supervisor.policy.events import TempEased, TempFilled
from supervisor.policy.temp import TempSettings, Watermarks

TURN_SECONDS = 0.002
"""A rename waits no longer for a turn that is on; some 100 files are deleted in it."""
STEPS_AT_LEAST = 32
"""A turn ends when the loop begins one of its own, but not before so many files: where the loop is always busy, they
still go."""
REST_SECONDS = 0.002
"""Between two turns: the loop, which shares the interpreter and the processor, comes first."""
LAST_SECONDS = 1.0
"""At a stop, what has been begun is deleted for so long; the next start does the rest."""
RETRY_SECONDS = 0.02
RETRIES_SECONDS = 10.0
"""Afterwards the sweeps look after it."""
INBOX_MAX = 10_000
JOBS_MAX = 256
"""Each holds a descriptor and some KB. What dies beyond them is left to the next sweep, which is one of them."""
HELD_MAX = 1_024
"""Workers that died within RETRIES_SECONDS and whose locks somebody still has."""

Asked = TempStats | TempReap


class Keeper:
    """Keeps one temp root. `bury` and `ask` are for the loop's thread and never block; `post` and `answer` are
    called from the keeper's thread."""

    def __init__(
        self,
        root: TempRoot,
        settings: TempSettings,
        *,
        post: Callable[[TempFilled | TempEased], None],
        answer: Callable[[bytes, AnyAnswer], None],
        complain: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        loop_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.root = root
        self._loop_busy = loop_busy
        self._settings = settings
        self._post = post
        self._answer = answer
        self._complain = complain
        self._clock = clock
        self._marks = Watermarks(settings)
        self._reaper = Reaper(root, settings, complain, may_help=True)
        self._inbox: queue.Queue[Callable[[], None] | None] = queue.Queue(INBOX_MAX)
        self._jobs: deque[Job] = deque()
        self._rest_seconds = REST_SECONDS
        self._held: dict[str, float] = {}
        """Stems of the dead whose directory is still locked, and when trying ends."""
        self._look_at = self._sweep_at = self._retry_at = clock()
        self._sweeping = False
        self._stopping = False
        self._stop_at = 0.0
        self._thread = threading.Thread(target=self._run, name="temp", daemon=True)

    def start(self) -> None:
        """Begins, with a sweep: what earlier runs left goes first."""
        self._thread.start()

    def bury(self, slot: int, incarnation: int) -> None:
        """Has a dead worker's directory taken away."""
        place = stem(self.root.token, self.root.run, f"{slot}.{incarnation}")
        self._submit(lambda: self._bury(place))

    def change(self, settings: TempSettings) -> None:
        """Has other settings used from now on."""

        def take() -> None:
            self._settings = self._marks.settings = self._reaper.settings = settings
            self._sweep_at = min(self._sweep_at, self._clock() + settings.sweep_seconds)
            self._look_at = self._clock()

        self._submit(take)

    def ask(self, peer: bytes, request: Asked) -> None:
        """Has a request answered."""
        self._submit(lambda: self._take(peer, request))

    @property
    def reaped_files(self) -> int:
        """How many files were deleted since the start."""
        return self._reaper.reaped_files

    def stores(self) -> list[Store]:
        """Returns what waits here, with its limits."""
        return [
            Store(name="temp directory's inbox", owner="temp", count=self._inbox.qsize(), limit_count=INBOX_MAX,
                  bytes=None, limit_bytes=None),
            Store(name="temp directories being deleted", owner="temp", count=len(self._jobs), limit_count=JOBS_MAX,
                  bytes=None, limit_bytes=None),
            Store(name="temp directories still locked", owner="temp", count=len(self._held), limit_count=HELD_MAX,
                  bytes=None, limit_bytes=None),
        ]  # fmt: skip

    def close(self, patience_seconds: float) -> None:
        """Deletes what the workers of this run left, as far as the time allows; the rest is the next start's. The
        root stays open."""
        if self._thread.ident is not None:
            with suppress(queue.Full):
                self._inbox.put_nowait(None)
            self._thread.join(patience_seconds)
        if not self._thread.is_alive():
            self._last_sweep(self._clock() + patience_seconds)

    def _submit(self, task: Callable[[], None]) -> None:
        try:
            self._inbox.put_nowait(task)
        except queue.Full:
            self._complain(f"{INBOX_MAX} requests wait for the temp directory already: is its disk hanging?")

    # ---- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            task = self._next()
            try:
                if task is not None:
                    task()
                elif self._stopping and (not self._jobs or self._clock() >= self._stop_at):
                    self._drop_jobs()
                    return
                self._periodic()
                if task is None and self._jobs:
                    self._turn(self._jobs[0])
            except Exception as error:  # a fault with one directory must not leave all others lying
                self._complain(f"the temp directory {self.root.path}: {type(error).__name__}: {error}")

    def _next(self) -> Callable[[], None] | None:
        """Returns what has come; waits for it only where there is nothing else to do."""
        try:
            if self._jobs or self._stopping:
                waiting = self._rest_seconds > REST_SECONDS
                task = self._inbox.get(timeout=0.0 if self._stopping and not waiting else self._rest_seconds)
            else:
                due = min(self._look_at, self._sweep_at, self._retry_at if self._held else self._look_at)
                task = self._inbox.get(timeout=max(0.0, due - self._clock()))
        except queue.Empty:
            return None
        if task is None:
            self._stopping = True
            self._stop_at = self._clock() + LAST_SECONDS
        return task

    def _turn(self, job: Job) -> None:
        until = self._clock() + TURN_SECONDS
        self._rest_seconds = REST_SECONDS
        try:
            steps = 0
            while self._clock() < until and (steps < STEPS_AT_LEAST or not self._loop_busy()):
                wait = next(job)
                if wait is not None:
                    if len(self._jobs) == 1:
                        self._rest_seconds = wait
                    break
                steps += 1
        except StopIteration:
            self._jobs.remove(job)
            return
        except BaseException:
            self._jobs.remove(job)
            raise
        self._jobs.rotate(-1)

    def _drop_jobs(self) -> None:
        """What is left is the next start's; no process of ours goes on."""
        for job in self._jobs:
            job.close()
        self._jobs.clear()
        self._reaper.may_help = False

    def _periodic(self) -> None:
        now = self._clock()
        if now >= self._look_at:
            self._look(now)
        if self._held and now >= self._retry_at:
            self._retry_at = now + RETRY_SECONDS
            for place in list(self._held):
                self._bury(place)
        if now >= self._sweep_at and not self._sweeping:
            self._sweep_at = now + self._settings.sweep_seconds
            self._sweeping = True
            self._free_the_abandoned()
            self._jobs.append(self._sweep())

    def _sweep(self) -> Job:
        try:
            yield from self._reaper.sweep(self._marks.full is not None, False, lambda report: None)
        finally:
            self._sweeping = False

    def _look(self, now: float) -> None:
        room = self.root.room()
        before = self._marks.full
        full = self._marks.update(room)
        self._look_at = now + self._marks.next_look_seconds(room)
        if full is not None and before is None:
            self._sweep_at = now
            self._post(TempFilled(reason=full))
        elif full is None and before is not None:
            self._post(TempEased())

    # ---- the dead --------------------------------------------------------------------------------

    def _bury(self, place: str) -> None:
        held = False
        for name in self.root.names():
            if not name.startswith(f"{place}-"):
                continue
            if len(self._jobs) >= JOBS_MAX - 1:
                self._sweep_at = self._clock()
                return
            try:
                lock = lock_alone(name, self.root.fd)
            except Held:
                held = True
                continue
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                os.unlink(name, dir_fd=self.root.fd)
                continue
            except OSError as error:
                self._reaper.tell(name, error.strerror or str(error))
                continue
            begun = self._reaper.trash(name, lock)
            if begun is not None:
                self._jobs.append(begun[2])
        if not held:
            self._held.pop(place, None)
        elif place not in self._held and len(self._held) >= HELD_MAX:
            self._sweep_at = self._clock()
        elif self._held.setdefault(place, self._clock() + RETRIES_SECONDS) < self._clock():
            del self._held[place]
            self._complain(f"{os.path.join(self.root.path, place)}: its worker is dead, but its lock is held; later")

    def _free_the_abandoned(self) -> None:
        """Kills what workers of an earlier run started and left behind: their group has the dead worker's number,
        which no other process can get while one of the group lives."""
        for candidate in candidates(self.root, self._settings, False):
            label = candidate.label
            candidate.release()
            if label is None or label.token != self.root.token or candidate.entry.lock != "held":
                continue
            if label.run != self.root.run and candidate.entry.process == "gone" and not label.is_trash:
                _kill_group(label)

    # ---- questions -------------------------------------------------------------------------------

    def _take(self, peer: bytes, request: Asked) -> None:
        if len(self._jobs) >= JOBS_MAX - 1:
            message = f"{len(self._jobs):,} jobs wait for the temp directory already; try again in a moment"
            self._answer(peer, Problem(id=request.id, code="busy", fault="machine", message=message, exit_code=4))
            return
        match request:
            case TempStats():
                self._jobs.appendleft(self._tell_usage(peer, request))
            case TempReap():
                self._jobs.append(self._reaper.sweep(False, request.dry_run, self._teller(peer, request)))

    def _teller(self, peer: bytes, request: TempReap) -> Callable[[TempReport], None]:
        return lambda report: self._answer(peer, msgspec.structs.replace(report, id=request.id))

    def _tell_usage(self, peer: bytes, request: TempStats) -> Job:
        usage = yield from measure(self.root)
        answer = usage_answer(self.root, usage, self._reaper.reaped_bytes)
        self._answer(peer, msgspec.structs.replace(answer, id=request.id))

    # ---- the end ---------------------------------------------------------------------------------

    def _last_sweep(self, deadline: float) -> None:
        """The workers were told to die, or died; what they leave is seen when their locks are free."""
        while self._clock() < deadline:
            mine = [name for name in self.root.names() if self._is_of_this_run(name)]
            if not mine:
                return
            for name in mine:
                with suppress(Held, OSError):
                    begun = self._reaper.trash(name, lock_alone(name, self.root.fd))
                    for _ in begun[2] if begun is not None else ():
                        if self._clock() >= deadline:
                            return
            time.sleep(RETRY_SECONDS)

    def _is_of_this_run(self, name: str) -> bool:
        label = parse(name)
        return label is not None and (label.token, label.run) == (self.root.token, self.root.run)


def usage_answer(root: TempRoot, usage: Usage, reaped_bytes: int) -> TempUsage:
    """Returns figures as clients get them."""
    return TempUsage(
        root=to_token(root.path),
        bytes=usage.bytes,
        files=usage.files,
        open_deleted_bytes=usage.open_deleted_bytes,
        by_source=usage.by_source,
        leases=usage.leases,
        reaped_bytes_total=reaped_bytes,
    )


def _kill_group(label: TempName) -> None:
    if process_of(label) == "gone" and start_ticks(label.pid) is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(label.pid, signal.SIGKILL)
