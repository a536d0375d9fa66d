"""Operations that misbehave on purpose do so: each in a process of its own, which ends as it was asked to."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.galleries import small_jpeg, write
from tests.mechanism.performing import Bench, step

_CODE = """
import sys
from tests.mechanism.performing import Bench, step
import msgspec
operation, parameters = sys.argv[3], msgspec.json.decode(sys.argv[4])
report = Bench(sys.argv[1]).run(sys.argv[2].encode(), step(operation, **parameters))
print(report.outcome, report.peak_bytes)
"""


def performed(
    directory: Path, operation: str, parameters: str, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs one misbehaving step on one file in a child; raises TimeoutExpired when it hangs."""
    path = write(directory, "p.jpg", small_jpeg()).decode()
    arguments = [sys.executable, "-c", _CODE, str(directory), path, operation, parameters]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=seconds)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_crash(tmp_path: Path, number: signal.Signals) -> None:
    assert performed(tmp_path, "misbehave.crash", f'{{"signal":{number.value}}}').returncode == -number


def test_exit(tmp_path: Path) -> None:
    assert performed(tmp_path, "misbehave.exit", '{"code":9}').returncode == 9
    assert performed(tmp_path, "misbehave.exit", '{"code":9,"only":"other*"}').stdout.startswith("done")


@pytest.mark.parametrize("parameters", ["{}", '{"busy":true}'])
def test_hang(tmp_path: Path, parameters: str) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        performed(tmp_path, "misbehave.hang", parameters, seconds=2)


def test_hang_for_a_while_only(tmp_path: Path) -> None:
    report = Bench(tmp_path).run(write(tmp_path, "p.jpg", small_jpeg()), step("misbehave.hang", seconds=0.05))
    assert report.outcome == "done" and report.seconds >= 0.05


def test_memory_is_taken_in_earnest(tmp_path: Path) -> None:
    for operation in ("misbehave.leak", "misbehave.allocate"):
        outcome, peak = performed(tmp_path, operation, '{"bytes":150000000}').stdout.split()
        assert outcome == "done" and int(peak) > 150_000_000


def test_memory_is_taken_at_the_asked_rate(tmp_path: Path) -> None:
    slow = step("misbehave.allocate", bytes=10_000_000, bytes_per_second=100_000_000)
    report = Bench(tmp_path).run(write(tmp_path, "p.jpg", small_jpeg()), slow)
    assert report.seconds >= 0.1
