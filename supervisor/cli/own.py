"""A supervisor started for one job: a child process, its log, its end.

It leads a session of its own, so that Ctrl-C reaches the command alone, which then stops it in order. If the
command is killed, the child finishes the job and leaves when it is idle.
"""

import os
import signal
import subprocess
import sys
import time

from protocol import kernel
from protocol.errors import GalleryError, MachineError, StateDirectoryUnusable
from protocol.sockets import is_listening
from supervisor.cli.find import endpoint_of
from supervisor.config import Reading
from supervisor.mechanism.state import StateDirectory

START_SECONDS = 60.0
"""The template needs about half a second, and up to 30 s pass where workers of a killed supervisor linger."""
STARTS_AT_MOST = 3
"""One that is killed before it listens is started again so often: whoever kills it may mean another."""
STOP_EXTRA_SECONDS = 15.0
"""Beyond the drain: workers are terminated and killed (5 s each), the journal is closed."""
EXIT_WHEN_IDLE = "10s"
LOOK_SECONDS = 0.01
EMERGENCY_EXIT = 75
LOG_NAME = "supervisor.log"
TOLD_BYTES = 4096


class OwnSupervisor:
    """The child. `flags` are the settings given on the command line, by name."""

    def __init__(self, reading: Reading, flags: dict[str, str]) -> None:
        self.log_path = os.path.join(reading.state_directory, LOG_NAME)
        self._reading = reading
        self._flags = flags
        self._child: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._told_from = 0

    def start(self) -> str:
        """Starts it and returns its endpoint once it listens, or that of another one that was faster.

        Raises the GalleryError with what the child said where it ended, or was not ready in time.
        """
        if self._reading.values["sandbox"] == "require" and (lacks := kernel.offer().lacking()):
            raise kernel.SandboxMissing(lacks)  # the child's exit code could also mean that another one was faster
        self._starts = 0
        self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._look_at_child()
            endpoint = endpoint_of(self._reading)
            if endpoint is not None and is_listening(endpoint) and (self._child is None or self._is_child_there()):
                return endpoint
            time.sleep(LOOK_SECONDS)
        if self._child is None:
            raise self._failed(4)
        self.stop(now=True)
        raise MachineError(f"the supervisor was not ready within {START_SECONDS:.0f} s; its log is {self.log_path}")

    @property
    def is_ours(self) -> bool:
        """Whether the supervisor in use is our child (and not one that was there first)."""
        return self._child is not None

    def leave(self) -> None:
        """Lets our child live on with what others gave it; it leaves by itself when it is idle."""
        self._child = None

    def has_died(self) -> bool:
        """Tells whether our child is gone though nobody stopped it. Raises where it stopped itself in an emergency:
        starting it again is for a person to decide."""
        code = None if self._child is None else self._child.poll()
        if code == EMERGENCY_EXIT:
            self._child = None
            raise self._ended(code, "the supervisor stopped itself to protect the machine's memory")
        return code is not None

    def stop(self, now: bool = False) -> None:
        """Stops our child, if there is one, and waits: TERM (twice to skip the drain), then KILL."""
        child = self._child
        if child is None:
            return
        self._child = None
        _signal(child, signal.SIGTERM)
        drain = 0.0 if now else float(self._reading.values["drain"])
        try:
            try:
                child.wait(drain)
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGTERM)
                child.wait(STOP_EXTRA_SECONDS)
        except KeyboardInterrupt:
            _signal(child, signal.SIGTERM)  # the second Ctrl-C: at once
            _wait_or_kill(child)
            raise
        except subprocess.TimeoutExpired:
            _wait_or_kill(child)

    def _spawn(self) -> None:
        self._starts += 1
        directory = self._reading.state_directory
        command = [sys.executable, "-P", "-m", "supervisor", "start", f"--exit-when-idle={EXIT_WHEN_IDLE}"]
        given = {**self._flags, "state": directory}
        command += [f"--{name}={value}" for name, value in given.items() if name != "recipe"]
        try:
            os.makedirs(os.path.dirname(directory), exist_ok=True)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirectoryUnusable(
                f"the state directory {directory} cannot be used: {error.strerror}; choose another one with --state"
            ) from error
        try:
            self._told_from = os.fstat(log).st_size
            environment = child_environment()
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        finally:
            os.close(log)

    def _look_at_child(self) -> None:
        """Forgets a child that another supervisor was faster than, and starts one again that was killed on its way;
        raises what any other one said at its end."""
        if self._child is None or (code := self._child.poll()) is None:
            return
        self._child = None
        if code == -signal.SIGKILL and self._starts < STARTS_AT_MOST:
            self._spawn()
        elif code != 4:
            raise self._failed(code)

    def _is_child_there(self) -> bool:
        found = StateDirectory(self._reading.state_directory).read_endpoint()
        return self._child is not None and found is not None and found.pid == self._child.pid

    def _failed(self, code: int) -> GalleryError:
        return self._ended(code, f"the supervisor could not start (exit code {code}):")

    def _ended(self, code: int, sentence: str) -> GalleryError:
        with open(self.log_path, "rb") as log:
            log.seek(max(self._told_from, os.fstat(log.fileno()).st_size - TOLD_BYTES))
            said = log.read(TOLD_BYTES).decode("utf-8", "replace").strip().splitlines()
        lines = [line.removeprefix("supervisor: ") for line in said] or [f"its log is {self.log_path}"]
        error = MachineError("\n".join([sentence, *lines]))
        error.__dict__["exit_code"] = code if code in (2, 4, EMERGENCY_EXIT) else 70
        return error


def child_environment() -> dict[str, str]:
    """Returns the environment of a child of ours: it finds our packages where we are, not in the current directory."""
    import supervisor

    root = os.path.dirname(os.path.dirname(os.path.abspath(supervisor.__file__)))
    environment = dict(os.environ)
    if os.path.basename(root) not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if child.poll() is None:
        child.send_signal(number)


def _wait_or_kill(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(STOP_EXTRA_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
