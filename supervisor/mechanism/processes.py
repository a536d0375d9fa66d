"""Starts worker processes from a warm template and tells how they end. The only importer of multiprocess.

multiprocess gives the fork server, the transport of a function into the child and the child's exit status
by way of the template. What it does beyond that is put right here, each for a reason:

* `__main__`: a child would import the command line again (its module name travels with every start). While
  a child is being started, `sys.modules["__main__"]` is a bare module, which has nothing to be imported by.
* its resource tracker, a Python process of 8 MB that unlinks leaked semaphores: we have none. It is told
  that one is running, behind a descriptor of /dev/null.
* its list of children, polled at every start and joined at exit: our children are watched by the loop, and
  two readers of one exit status would lose it. They are taken off that list.
* its socket lies in the run directory rather than in a new directory of the temp root, where every
  supervisor that was killed would leave one behind.

**Thread**: `Processes` is built before there are threads (it adds to the environment that the template
inherits), and `prepare` and `start` are called from one thread that lives as long as the workers should:
the kernel's parent-death signal fires when that *thread* ends, not when the process does.

A worker that died says so by its pidfd (or its sentinel, where the kernel has none); why it died is the
template's to tell, as its parent, within milliseconds.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator

import msgspec
import multiprocess
from multiprocess import forkserver, process, resource_tracker

from protocol.errors import MachineError
from protocol.launch import PLAN_VARIABLE, TemplatePlan, WorkerStart, enter
from protocol.temp_name import start_ticks

PREPARE_SECONDS = 30.0
"""A template imports its decoders in about 0.3 s; a cold disk under load may take a hundred times as long."""

START_SECONDS = 10.0
"""A fork takes milliseconds; a template that does not answer in that time is killed, and the next start makes
a new one."""

LOOK_SECONDS = 0.005
"""Pause between two looks at the template while it prepares, and at the life lock."""

_SOCKET_PREFIX = "listener-"
MAX_SOCKET_DIRECTORY_BYTES = 107 - len(f"/{_SOCKET_PREFIX}xxxxxxxx")
"""The fork server's socket has that name in its directory; sun_path holds 107 bytes (unix(7))."""

_SYS_PROCESS_MRELEASE = 448
_NEVER_BEGAN = "it ended before it could import workers.template: is the package complete, and readable from here?"
_STATUS_BYTES = 8  # multiprocess.forkserver.SIGNED_STRUCT


class StartError(MachineError):
    """No worker could be started; the message is what the template said, or what the system refused."""

    code = "start"


class WorkerProcess:
    """One worker, as a process: what the loop polls, signals and reads the end of."""

    def __init__(self, slot: int, incarnation: int, child: "multiprocess.Process") -> None:
        self.slot = slot
        self.incarnation = incarnation
        self.pid: int = child.pid
        self._child = child  # owns the sentinel; what multiprocess would do with it at exit is not wanted
        self._sentinel: int = child.sentinel
        self._exit_code: int | None = None
        self._told = False
        self.pidfd = _open_pidfd(self.pid)
        self._start_ticks = start_ticks(self.pid)

    def fileno(self) -> int:
        """Returns what to poll for reading: readable means dead (pidfd), or that its end was told (sentinel)."""
        return self._sentinel if self.pidfd is None else self.pidfd

    def gone(self) -> bool:
        """Tells whether the process is dead and its memory back."""
        return _readable(self.fileno(), 0.0)

    def terminate(self) -> None:
        """Sends SIGTERM: the worker finishes the item in progress. A worker that is gone is no fault."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL to the worker and to whatever it started in its process group."""
        if self.gone():
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)  # while it is not dead, no other group can have its number
        except (ProcessLookupError, PermissionError):
            pass  # killed in its first microseconds, before it had a group
        self._signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """Kills what a dead worker started and left in its process group: it would hold its files and its memory.

        While one of the group lives, its number is no other group's; a pid that lives again with another start is
        somebody else's, and so may be the group.
        """
        lives = start_ticks(self.pid)
        if lives is not None and lives != self._start_ticks:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # it left nobody behind

    def release(self) -> None:
        """Frees the memory of a killed process now (process_mrelease, Linux 5.15), not when it is next scheduled;
        best effort."""
        if self.pidfd is not None and sys.platform == "linux":
            _libc.syscall(_SYS_PROCESS_MRELEASE, self.pidfd, 0)

    def exit_code(self, wait_seconds: float = 0.05) -> int | None:
        """Returns the exit status, negative for a signal; None when the template does not tell within the time
        (it died too, or it is busy: asking again may help)."""
        if not self._told and _readable(self._sentinel, wait_seconds):
            self._told = True
            told = os.read(self._sentinel, _STATUS_BYTES)
            if len(told) == _STATUS_BYTES:
                self._exit_code = int.from_bytes(told, sys.byteorder, signed=True)
        return self._exit_code

    def close(self) -> None:
        """Lets the descriptors go; the process is not touched. No other method may be called afterwards."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        self._child._popen.close()

    def _signal(self, number: int) -> None:
        try:
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            elif not self.gone():
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # it was faster


class Processes:
    """The template, the death pipe and the life lock of one supervisor. One at a time in a process."""

    def __init__(
        self,
        *,
        run_directory: str,
        plan: TemplatePlan,
        entry: str = "workers.entry",
        prepare_seconds: float = PREPARE_SECONDS,
    ) -> None:
        """Makes the death pipe and the life lock in `run_directory`. `entry` names the module whose `main` a
        worker is. Raises OSError when it cannot."""
        self.death_pipe_path = os.path.join(run_directory, "death-pipe")
        self.life_lock_path = os.path.join(run_directory, "life-lock")
        self.template_pidfd: int | None = None
        self._plan = plan
        self._entry = entry
        self._prepare_seconds = prepare_seconds
        self._environment = _Environment(plan)
        self._death_pipe = _make_death_pipe(self.death_pipe_path)
        os.close(os.open(self.life_lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._context = multiprocess.get_context("forkserver")
        self._context.set_forkserver_preload(["workers.template"])
        _place_socket(run_directory)
        _do_without_tracker()

    @property
    def template_pid(self) -> int | None:
        """The pid of the template, None when there is none."""
        pid: int | None = forkserver._forkserver._forkserver_pid
        return pid

    def template_alive(self) -> bool:
        """Tells whether the template is there and alive."""
        pid = self.template_pid
        if pid is None:
            return False
        if self.template_pidfd is not None:
            return not _readable(self.template_pidfd, 0.0)
        return _still_runs(pid)

    def prepare(self) -> None:
        """Starts the template and waits until it is warm; does nothing when it is. Raises StartError."""
        if self.template_alive():
            return
        self._bury_template()
        with open(self._plan.report_path, "w") as report:
            report.write(_NEVER_BEGAN)
        try:
            with _bare_main():
                forkserver.ensure_running()
        except OSError as error:
            raise StartError(f"the template process cannot be started: {error}") from error
        assert self.template_pid is not None
        self.template_pidfd = _open_pidfd(self.template_pid)
        self._await_template()

    def start(self, start: WorkerStart) -> WorkerProcess:
        """Forks a worker, from a new template if the last one is gone; `start.template_pid` is filled in here.
        Raises StartError."""
        self.prepare()
        template = self.template_pid
        assert template is not None
        told = msgspec.json.encode(msgspec.structs.replace(start, template_pid=template))
        child = self._context.Process(target=enter, args=(self._entry, told), name=f"worker-{start.slot}")
        watchdog = threading.Timer(START_SECONDS, self._kill_template)
        watchdog.daemon = True
        watchdog.start()
        try:
            with _bare_main():
                child.start()
        except (OSError, EOFError) as error:
            raise StartError(f"the template process did not make worker {start.slot}: {self._reason(error)}") from error
        finally:
            watchdog.cancel()
        process._children.discard(child)
        return WorkerProcess(start.slot, start.incarnation, child)

    def renew(self) -> None:
        """Ends the template; the next start makes a new one."""
        self._kill_template()

    def close(self) -> None:
        """Ends the template, and by the death pipe every worker that is left. Idempotent."""
        self._kill_template()
        self._bury_template()
        for descriptor in self._death_pipe:
            os.close(descriptor)
        self._death_pipe = ()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.death_pipe_path)
        self._environment.restore()

    def _await_template(self) -> None:
        deadline = time.monotonic() + self._prepare_seconds
        while os.path.getsize(self._plan.report_path) > 0:
            if not self.template_alive():
                reason = self._reason(None)
                self._bury_template()
                raise StartError(f"the template process could not be prepared: {reason}")
            if time.monotonic() > deadline:
                self._kill_template()
                self._bury_template()
                raise StartError(
                    f"the template process was not ready after {self._prepare_seconds:g} s and was killed: "
                    "an operation hangs while it is imported, or the disk is very slow"
                )
            time.sleep(LOOK_SECONDS)

    def _reason(self, error: Exception | None) -> str:
        with open(self._plan.report_path, encoding="utf-8", errors="replace") as report:
            said = report.read(10_000)
        if said or error is None:
            return said
        return str(error) or "it ended without a word (killed, or out of processes or memory)"

    def _kill_template(self) -> None:
        try:
            if self.template_pidfd is not None:
                signal.pidfd_send_signal(self.template_pidfd, signal.SIGKILL)
            elif self.template_pid is not None:
                os.kill(self.template_pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was faster

    def _bury_template(self) -> None:
        """Reaps a dead template and makes multiprocess forget it."""
        if self.template_pidfd is not None:
            os.close(self.template_pidfd)
            self.template_pidfd = None
        if self.template_pid is not None:
            try:
                forkserver._forkserver._stop()
            except (ChildProcessError, FileNotFoundError):  # reaped by a look at it; socket already gone
                forkserver._forkserver._forkserver_pid = None
                forkserver._forkserver._forkserver_address = None


def wait_for_orphans(life_lock_path: str, timeout_seconds: float) -> bool:
    """Waits until no worker of an earlier supervisor lives; False when one still does after the time.

    They die of the death pipe within milliseconds; one in an uninterruptible wait for a disk takes longer.
    """
    try:
        lock = os.open(life_lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + timeout_seconds
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
            time.sleep(LOOK_SECONDS)
    finally:
        os.close(lock)


class _Environment:
    """What the template inherits beside the plan. Our packages may have been found in ways it does not know
    (the folder of the program, the current one), and the current folder is the user's: a file `queue.py`
    beside the photographs must not be imported. The template deletes what it does not need."""

    def __init__(self, plan: TemplatePlan) -> None:
        home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        added = {
            PLAN_VARIABLE: msgspec.json.encode(plan).decode(),
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self._before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)

    def restore(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}


@contextlib.contextmanager
def _bare_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _make_death_pipe(path: str) -> tuple[int, ...]:
    """Makes the FIFO anew, so that workers of an earlier supervisor keep theirs, and opens both ends: without
    a reader the write end could not be opened."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC), reader


def _place_socket(directory: str) -> None:
    if len(os.fsencode(directory)) <= MAX_SOCKET_DIRECTORY_BYTES:
        process.current_process()._config["tempdir"] = directory
    # A supervisor that is killed leaves its fork server's socket; the directory is of whoever holds the state's lock.
    for name in os.listdir(directory):
        if name.startswith(_SOCKET_PREFIX):
            os.unlink(os.path.join(directory, name))


def _do_without_tracker() -> None:
    tracker = resource_tracker._resource_tracker
    if tracker._fd is None:
        tracker._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # dead and reaped already, or a kernel without: the sentinel tells


def _still_runs(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def _readable(descriptor: int, wait_seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(round(wait_seconds * 1000)))


_libc = ctypes.CDLL(None, use_errno=True)
