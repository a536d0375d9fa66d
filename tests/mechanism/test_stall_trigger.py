"""The kernel's trigger on memory pressure: what is written, what stands in its way, and that a real stall wakes us."""

import os
from pathlib import Path

import pytest

from protocol import sockets
from supervisor.mechanism.memory import describe
from supervisor.mechanism.memory.cgroup_tree import Group
from supervisor.mechanism.memory.pressure_stall import PressureStall
from supervisor.mechanism.memory.stall_trigger import StallTrigger, why_missing
from tests.end_to_end.groups import waiting_for_memory

LINE = "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"


@pytest.fixture
def pressure(tmp_path: Path) -> Path:
    path = tmp_path / "proc/pressure/memory"
    path.parent.mkdir(parents=True)
    path.write_text(LINE)
    return path


def test_the_line_names_the_share_of_two_seconds_and_ends_with_its_nul(pressure: Path) -> None:
    trigger = StallTrigger(str(pressure))
    trigger.arm(0.10)
    assert trigger.missing is None and pressure.read_bytes().startswith(b"some 200000 2000000\0")
    first = trigger.fileno()
    trigger.arm(0.10)
    assert first is not None and trigger.fileno() == first, "the same again changes nothing"
    trigger.arm(0.25)
    assert pressure.read_bytes().startswith(b"some 500000 2000000\0"), "another share is another trigger"
    trigger.close()
    trigger.close()
    assert trigger.fileno() is None


def test_nothing_is_polled_where_there_is_no_file(tmp_path: Path) -> None:
    trigger = StallTrigger(None)
    trigger.arm(0.1)
    assert trigger.fileno() is None and trigger.missing == "the kernel has no such file"
    gone = StallTrigger(str(tmp_path / "gone"))
    gone.arm(0.1)
    assert gone.fileno() is None and gone.missing == f"{tmp_path / 'gone'}: No such file or directory"


def test_a_kernel_that_refuses_leaves_the_counters(tmp_path: Path, pressure: Path) -> None:
    """/dev/full refuses each write, as a kernel does that has no triggers, has one already or wants another window."""
    assert why_missing("/dev/full", 0.1) == "/dev/full: No space left on device"
    pressure.unlink()
    pressure.mkdir()
    assert why_missing(str(pressure), 0.1) == f"{pressure}: Is a directory"
    stall = PressureStall(str(tmp_path))
    assert stall.trigger.missing == "not asked for" and stall.share(1.0) is None
    stall.close()


def test_doctor_says_which(tmp_path: Path, pressure: Path) -> None:
    (line,) = [line for line in describe(str(tmp_path)) if line.startswith("pressure stall")]
    assert line == f"pressure stall information: {pressure}; its trigger wakes the supervisor"


def test_doctor_says_why_there_is_none(tmp_path: Path, pressure: Path) -> None:
    pressure.chmod(0o444)
    if os.access(pressure, os.W_OK):
        pytest.skip("root may write what nobody may")
    (line,) = [line for line in describe(str(tmp_path)) if line.startswith("pressure stall")]
    assert line.endswith(f"read at every look, no trigger ({pressure}: Permission denied)")


def test_counters_and_trigger_speak_of_the_group_of_the_workers(tmp_path: Path, pressure: Path) -> None:
    base = tmp_path / "group"
    base.mkdir()
    (base / "memory.pressure").write_text(LINE)
    stall = PressureStall(str(tmp_path), Group(2, str(base), str(tmp_path)))
    stall.trigger.arm(0.1)
    assert stall.source == str(base / "memory.pressure") and stall.trigger.missing is None
    assert (base / "memory.pressure").read_bytes().startswith(b"some 200000") and pressure.read_text() == LINE
    stall.close()


def test_a_real_stall_wakes_the_poll(tmp_path: Path) -> None:
    path = "/proc/pressure/memory"
    trigger = StallTrigger(path)
    trigger.arm(0.000_5)  # a millisecond in two seconds
    descriptor = trigger.fileno()
    if descriptor is None:
        pytest.skip(f"this kernel has no trigger: {trigger.missing}")
    poller = sockets.Poller()
    poller.register(descriptor, sockets.POLLPRI)
    try:
        with waiting_for_memory(str(tmp_path / "written")):
            assert dict(poller.poll(60_000)) == {descriptor: sockets.POLLPRI}
            assert not dict(poller.poll(0)), "told once a window, not until it is read"
    finally:
        trigger.close()
