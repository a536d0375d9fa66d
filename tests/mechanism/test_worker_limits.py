"""The nets under a worker, each alone: real processes whose only way to die is the net under test."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mechanism.real_pool import DEADLINE_SECONDS, ended

HOME = str(Path(__file__).parents[2])
SPIN = "print('up', flush=True); sum(range(10**15))"


@contextlib.contextmanager
def child(program: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, "-c", f"import os, sys\nfrom workers import limits\n{program}", *arguments],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": HOME},
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # a net that did not hold fails its test, and holds it up no longer


def wait_for_line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@pytest.fixture
def death_pipe(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "death-pipe")
    os.mkfifo(path)
    yield path


def test_end_of_the_death_pipe_kills_inside_a_c_function(death_pipe: str) -> None:
    reader = os.open(death_pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(death_pipe, os.O_WRONLY)
    with child(f"pipe = limits.die_with_supervisor(sys.argv[1]); {SPIN}", death_pipe) as process:
        assert wait_for_line(process) == "up"
        assert process.poll() is None
        os.close(writer)
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGIO
    os.close(reader)


def test_a_death_pipe_that_is_over_already_is_noticed(death_pipe: str) -> None:
    with child(f"limits.die_with_supervisor(sys.argv[1]); {SPIN}", death_pipe) as process:
        assert process.wait(DEADLINE_SECONDS) == 70
    os.unlink(death_pipe)
    with child(f"limits.die_with_supervisor(sys.argv[1]); {SPIN}", death_pipe) as process:
        assert process.wait(DEADLINE_SECONDS) == 70


@pytest.mark.skipif(sys.platform != "linux", reason="a signal of Linux")
def test_the_parents_death_kills_inside_a_c_function() -> None:
    program = f"""
if os.fork():
    os.read(0, 1)  # until the test closes it, then this parent ends
    os._exit(0)
limits.die_with(os.getppid())
print(os.getpid(), flush=True)
{SPIN}
"""
    command = [sys.executable, "-c", f"import os\nfrom workers import limits\n{program}"]
    environment = os.environ | {"PYTHONPATH": HOME}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        grandchild = os.pidfd_open(int(wait_for_line(parent)))
        assert wait_for_line(parent) == "up"
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.wait(DEADLINE_SECONDS) == 0
        over = ended(grandchild)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(grandchild, signal.SIGKILL)
        os.close(grandchild)
        assert over


def test_a_parent_that_is_not_the_one_expected_is_noticed() -> None:
    with child(f"limits.die_with(1); {SPIN}") as process:
        assert process.wait(DEADLINE_SECONDS) == 70


def test_the_life_lock_is_held_until_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "life-lock")
    with child(f"lock = limits.hold_life_lock(sys.argv[1]); {SPIN}", path) as process:
        assert wait_for_line(process) == "up"
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared with its siblings
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        process.kill()
        process.wait(DEADLINE_SECONDS)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


BROKEN_TIFF = """
import io
from PIL import Image
file = io.BytesIO()
Image.new("L", (64, 64)).save(file, "TIFF", compression="tiff_lzw")
data = bytearray(file.getvalue())
data[8:40] = b"\\xff" * 32
try:
    Image.open(io.BytesIO(bytes(data))).load()
except Exception as error:
    print(type(error).__name__, flush=True)
"""


def test_a_broken_tiff_prints_nothing() -> None:
    silent = f"from workers.images.quiet import silence_libtiff\nassert silence_libtiff()\n{BROKEN_TIFF}"
    command = [sys.executable, "-c", silent]
    silenced = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": HOME}, timeout=60)
    assert (silenced.returncode, silenced.stderr) == (0, b"")
    loud = subprocess.run([sys.executable, "-c", BROKEN_TIFF], capture_output=True, timeout=60)
    assert loud.stderr, "without it, libtiff prints: this file is broken enough"
