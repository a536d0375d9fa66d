"""The first steps of a worker, in the one order that is right.

Parent's death before anything that could last; what is needed under /proc before a sandbox could forbid
it; then the sandbox; the ZeroMQ socket last, because its thread would stay outside of what is set before.
"""

import os
import signal
import sys
from types import FrameType

import msgspec

from protocol import sockets
from protocol.kernel import SandboxMissing
from protocol.launch import WorkerStart
from protocol.recorder import Recorder
from workers import limits, sandbox
from workers.cleanup import CleanupRegistry, Moment
from workers.loop import Stop, WorkerLoop
from workers.memory import OwnMemory, PeakMeter, give_back_at_once
from workers.memory_lease import Leases
from workers.models import Models
from workers.perform import Context
from workers.scratch import Scratch, own_directory

NO_SANDBOX = 78
"""Exit status of a worker that was to be confined and could not be (sysexits EX_CONFIG)."""


def main(start: WorkerStart) -> None:
    """Is a worker until it is told to leave. Raises SystemExit with its status when that is not 0."""
    os.setpgid(0, 0)
    limits.die_with(start.template_pid)
    limits.be_called(f"gallery-work-{start.slot}")
    _let_template_go()
    limits.die_with_supervisor(start.death_pipe_path)
    limits.hold_life_lock(start.life_lock_path)
    limits.step_back(nice=start.nice, idle_io=start.idle_io, oom_score_adj=start.oom_score_adj)
    give_back_at_once()
    stop = _take_signals()
    memory, peak = OwnMemory(), PeakMeter()
    start = msgspec.structs.replace(start, temp_directory=own_directory(start.temp_directory))
    cleanup = CleanupRegistry()
    # A confined worker empties its directory and leaves the directory itself to the supervisor, who buries everybody.
    scratch = Scratch(start.temp_directory, cleanup, keep_directory=start.sandbox != "off")
    recorder = Recorder(start.recorder_path, start.slot, start.incarnation)
    leases = Leases(from_bytes=start.lease_from_bytes, renew_seconds=start.lease_renew_seconds)
    context = Context(
        recorder=recorder,
        state_token=start.state_token,
        temp_directory=start.temp_directory,
        scratch=scratch,
        limits=start.limits,
        peak=peak,
        leases=leases,
        models=Models(leases, memory, idle_seconds=start.model_idle_seconds),
    )
    status = _serve(start, stop, memory, context, recorder, cleanup, _confine(start))
    if status:
        raise SystemExit(status)


def _confine(start: WorkerStart) -> str:
    """Goes into the sandbox; returns the level, or leaves where one is required and there is none."""
    try:
        return sandbox.confine(
            start.sandbox,
            read=start.roots_read,
            write=start.roots_write,
            temp_directory=start.temp_directory,
            library=start.library,
        )
    except (SandboxMissing, OSError) as error:
        print(f"worker {start.slot}.{start.incarnation}: no sandbox: {error}", file=sys.stderr)
        if start.sandbox == "require":
            raise SystemExit(NO_SANDBOX) from error
        return "none"


def _serve(
    start: WorkerStart,
    stop: Stop,
    memory: OwnMemory,
    context: Context,
    recorder: Recorder,
    cleanup: CleanupRegistry,
    sandbox_level: str,
) -> int:
    zmq = sockets.new_context()
    socket = sockets.worker_socket(zmq, start.backend_endpoint, f"{start.slot}.{start.incarnation}".encode())
    try:
        return WorkerLoop(start, socket, stop, memory, context, recorder, cleanup, sandbox_level).run()
    finally:
        for warning in cleanup.run(Moment.WORKER):
            print(f"worker {start.slot}.{start.incarnation}: {warning}", file=sys.stderr)
        socket.close()
        zmq.term()


def _let_template_go() -> None:
    """Closes the write end of the fork server's `alive` pipe that every child inherits: the template ends when
    nobody holds it, and a worker must not be the one who does. Found where the fork server keeps it, because
    the supervisor's library of processes is not imported here."""
    server = getattr(sys.modules.get("multiprocess.forkserver"), "_forkserver", None)
    descriptor = getattr(server, "_forkserver_alive_fd", None)
    if server is not None and descriptor is not None:
        os.close(descriptor)
        server._forkserver_alive_fd = None


def _take_signals() -> Stop:
    """Ctrl-C is the supervisor's; SIGTERM finishes the item in progress."""
    stop = Stop()

    def on_term(_number: int, _frame: FrameType | None) -> None:
        stop.ask()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_term)
    return stop
