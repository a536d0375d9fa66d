"""What a process of the pool may do and when it must die: set once, before any thread exists.

A worker must never outlive the supervisor: nobody would watch its memory, and its late writes would race
with the next supervisor's. Its parent is the template, not the supervisor, so three nets lie under it:

* the parent-death signal: the template's death kills the worker. The signal is asked for after the fork,
  so whoever asks looks once more whether the parent is still the one it knew;
* the death pipe: a FIFO whose write end the supervisor alone holds. Its end-of-file raises SIGIO in the
  worker, whose default action is death: it works inside a decoder that never returns to Python, and also
  where there is no parent-death signal (macOS);
* the life lock: held shared as long as the worker lives, so that the next supervisor can wait for the
  last of them.

And it is made the one to suffer: the kernel's OOM killer prefers it to the supervisor, it yields the
processor and the disk to whatever else the machine does, and it leaves no core files of gigapixel images.
"""

import ctypes
import fcntl
import os
import platform
import resource
import signal
import sys

PARENT_GONE = 70
"""Exit status of a worker that finds its template or supervisor gone: an internal error (sysexits EX_SOFTWARE)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NAME = 15
_IOPRIO_WHO_PROCESS = 1  # linux/ioprio.h
_IOPRIO_IDLE = 3 << 13
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "i686": 289, "ppc64le": 273, "s390x": 282}
"""Number of the system call, which no libc wraps (asm/unistd.h of each machine)."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent_pid: int) -> None:
    """Ties this process to the thread that forked it: SIGKILL when that ends. Leaves at once when it already has."""
    if sys.platform == "linux" and _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent_pid:
        os._exit(PARENT_GONE)


def die_with_supervisor(death_pipe_path: str) -> int:
    """Ties this process to the write end of the death pipe; returns the descriptor, to be kept open.

    The order closes the race: end-of-file before O_ASYNC is found by the read, after it by the signal.
    Raises OSError when there is no such FIFO.
    """
    try:
        pipe = os.open(death_pipe_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        os._exit(PARENT_GONE)  # a supervisor that stopped took its pipe away
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    try:
        written = os.read(pipe, 1)
    except BlockingIOError:
        return pipe  # nothing to read, and somebody holds the other end: the supervisor lives
    if not written:
        os._exit(PARENT_GONE)
    return pipe


def be_called(name: str) -> None:
    """Names this process for ps and top, by the first 15 bytes; all forks of a template look alike otherwise."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def hold_life_lock(life_lock_path: str) -> int:
    """Holds the life lock shared; returns its descriptor, to be kept open. Raises OSError."""
    lock = os.open(life_lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def step_back(*, nice: int, idle_io: bool, oom_score_adj: int) -> None:
    """Puts this process behind the others of the machine, as far as the machine lets it; leaves no core files.

    `nice` is absolute and never raises the priority. `oom_score_adj` is 0 to 1000, in thousandths of the
    memory: 500 outweighs any supervisor. Each is a courtesy: where it is refused, work goes on without.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(oom_score_adj))
    except OSError:
        pass  # no /proc, or a container that forbids it
    if nice > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    number = _IOPRIO_SET.get(platform.machine())
    if idle_io and sys.platform == "linux" and number is not None:
        _libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
