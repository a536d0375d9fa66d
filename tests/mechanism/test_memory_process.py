"""Memory of real processes from outside, and what is left where sources are missing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.mechanism.memory import Machine, MemorySample, describe, open_process
from supervisor.mechanism.memory.kept_file import figure

MIB = 1 << 20
ROOTS = ["/", "missing"]
CHILD = """
import sys
held = []
for line in sys.stdin:
    held.append(bytearray(b"x") * int(line))
    print(len(held), flush=True)
"""


class Child:
    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.take(0)

    def take(self, size: int) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{size}\n".encode())
        self.process.stdin.flush()
        assert self.process.stdout.readline()


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child()
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


@pytest.fixture(params=ROOTS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The real "/", and a place without any /proc, where psutil has to do."""
    return "/" if request.param == "/" else str(tmp_path)


def test_what_is_shared_is_presumed_until_it_is_measured(child: Child, root: str) -> None:
    memory = open_process(child.process.pid, root)
    assert memory is not None and memory.measured_shared_bytes is None
    memory.presume_shared(1 << 40)
    presumed = memory.sample()
    details = memory.details()
    measured = memory.sample()
    assert presumed is not None and presumed.shared_bytes == presumed.rss_bytes
    assert details is not None and measured is not None
    assert measured.shared_bytes == details.rss_bytes - details.uss_bytes < measured.rss_bytes


def test_growth_is_seen_without_the_help_of_the_process(child: Child, root: str) -> None:
    memory = open_process(child.process.pid, root)
    assert memory is not None
    before = memory.sample()
    child.take(50 * MIB)
    after = memory.sample()
    assert before is not None and after is not None
    assert 49 * MIB <= after.rss_bytes - before.rss_bytes <= 56 * MIB
    assert 0 <= after.shared_bytes <= after.rss_bytes
    assert memory.source == ("/proc/PID/statm" if root == "/" else "psutil")
    memory.close()


def test_a_thorough_look_tells_the_shared_part_and_later_samples_use_it(child: Child, root: str) -> None:
    memory = open_process(child.process.pid, root)
    assert memory is not None
    child.take(30 * MIB)
    details = memory.details()
    sample = memory.sample()
    assert details is not None and sample is not None
    assert 30 * MIB <= details.uss_bytes <= details.pss_bytes <= details.rss_bytes
    assert sample.shared_bytes == details.rss_bytes - details.uss_bytes
    assert abs(sample.rss_bytes - details.rss_bytes) < 2 * MIB
    memory.close()


def test_a_dead_process_has_no_memory(child: Child, root: str) -> None:
    memory = open_process(child.process.pid, root)
    assert memory is not None
    child.process.kill()
    os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
    if root == "/":
        assert memory.sample() is None, "dead and not yet reaped: all figures are zero"
        assert memory.details() is None
    child.process.wait()
    assert memory.sample() is None
    assert memory.details() is None
    assert open_process(child.process.pid, root) is None
    memory.close()
    memory.close()


def test_swap_counts_as_used_and_the_shared_part_is_bounded(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    for name in ("self", "77"):
        directory = tmp_path / "proc" / name
        directory.mkdir(parents=True)
        (directory / "statm").write_text("1000 500 100 1 0 200 0\n")
        (directory / "status").write_text("Name:\tpython\nVmRSS:\t 2000 kB\nVmSwap:\t    300 kB\nThreads:\t1\n")
    memory = open_process(77, str(tmp_path))
    assert memory is not None
    assert memory.sample() == MemorySample(500 * page, 100 * page)
    assert memory.sample(swap_in_use=True) == MemorySample(500 * page + 300 * 1024, 100 * page, 300 * 1024)
    rollup = "00-ff ---p 0 00:00 0 [rollup]\nRss: 2000 kB\nPss: 900 kB\nPrivate_Clean: 100 kB\nPrivate_Dirty: 300 kB\n"
    (tmp_path / "proc" / "77" / "smaps_rollup").write_text(rollup)
    assert memory.details() == (2000 * 1024, 900 * 1024, 400 * 1024, 0)
    assert memory.sample() == MemorySample(500 * page, 1600 * 1024)
    (tmp_path / "proc" / "77" / "statm").write_text("1000 50 10 1 0 200 0\n")
    assert memory.sample() == MemorySample(50 * page, 50 * page), "never more shared than there is"
    (tmp_path / "proc" / "77" / "statm").write_text("0 0 0 0 0 0 0\n")
    assert memory.sample() is None
    memory.close()


def test_the_machine(root: str) -> None:
    machine = Machine(root)
    look = machine.look()
    assert machine.source == ("/proc/meminfo" if root == "/" else "psutil")
    assert look.physical_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < look.available_bytes <= look.physical_bytes
    assert look.swap_used_bytes >= 0
    if root == "/":
        assert machine.oom_kills() is not None
        assert machine.swapped_in_bytes() is not None
    else:
        assert machine.oom_kills() is None
    machine.close()
    machine.close()


def test_an_old_kernel_has_no_estimate_of_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(
        "MemTotal: 1000 kB\nMemFree: 100 kB\nCached: 50 kB\nSwapCached: 7 kB\nSwapTotal: 40 kB\nSwapFree: 30 kB\n"
    )
    assert Machine(str(tmp_path)).look() == (1000 * 1024, 150 * 1024, 10 * 1024)


def test_doctor_is_told_what_is_in_use_and_what_is_missing(tmp_path: Path) -> None:
    here, nowhere = describe(), describe(str(tmp_path))
    assert "memory of a process: /proc/PID/statm" in here
    assert "memory of the machine: /proc/meminfo" in here
    assert "memory of a process: psutil" in nowhere
    assert "control group: missing, the budget is what the machine can spare" in nowhere
    assert "pressure stall information: missing, memory sizes alone decide" in nowhere
    assert len(here) == len(nowhere)


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"oom 2\noom_kill 3\noom_group_kill 4\n", b"oom_kill ", 3),
        (b"total_active_file 9\nactive_file 5\n", b"active_file ", 5),
        (b"VmSwap:\t   12 kB\n", b"VmSwap:", 12),
        (b"total_active_file 9\n", b"active_file ", None),
        (b"memory.max max\n", b"memory.max ", None),
        (b"", b"x ", None),
        (b"x ", b"x ", None),
    ],
)
def test_a_figure_is_found_by_name_at_the_start_of_a_line(content: bytes, name: bytes, expected: int | None) -> None:
    assert figure(content, name) == expected
