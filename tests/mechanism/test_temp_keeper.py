"""The keeper's thread: the dead first, everything else in turns, and what people and the pool are told."""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.messages import TempReap, TempStats
from supervisor.mechanism.temp import TempRoot
from supervisor.mechanism.temp import keeper as module
from supervisor.mechanism.temp.directory import lock_alone
from supervisor.policy.events import TempEased, TempFilled
from supervisor.policy.sizes import MB
from supervisor.policy.temp import Room
from tests.mechanism.real_pool import ended, real_pool, wait_until
from tests.mechanism.temp_bed import OURS, RUN, KeeperBed, fill, hold, name_of, until

PEER = b"client"
SEEN_SECONDS = 0.1
"""What is promised from a death being seen to its directory being gone."""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[KeeperBed]:
    bed = KeeperBed(tmp_path / "root")
    yield bed
    bed.close()


def test_a_dead_workers_directory_is_gone_at_once_and_its_files_soon(bed: KeeperBed) -> None:
    directory = fill(bed.worker(0, 1), files=10)
    other = bed.worker(0, 11)
    bed.keeper.bury(0, 1)
    assert until(lambda: not directory.exists(), "directory gone") < SEEN_SECONDS
    until(lambda: bed.names() == [other.name], "everything deleted, but of no worker whose number begins alike")
    bed.keeper.ask(PEER, TempStats(id=7))
    usage = bed.usage()
    assert (usage.id, usage.reaped_bytes_total) == (7, 10 * 4096)


def test_the_next_death_does_not_wait_for_a_large_directory(bed: KeeperBed) -> None:
    big = bed.worker(0, 1)
    for number in range(20_000):
        os.close(os.open(big / str(number), os.O_CREAT | os.O_WRONLY))
    others = {number: bed.worker(1, number) for number in range(2, 7)}
    bed.keeper.bury(0, 1)
    until(lambda: not big.exists(), "the large directory renamed")
    slow = []
    for number, directory in others.items():
        bed.keeper.bury(1, number)
        slow.append(until(lambda d=directory: not d.exists(), "directory gone"))  # type: ignore[misc]
    assert any("trash" in name for name in bed.names()), "it was still being deleted"
    assert sorted(slow)[len(slow) // 2] < SEEN_SECONDS
    until(lambda: bed.names() == [], "all deleted")


def test_more_dead_than_there_are_places_are_left_to_a_sweep(bed: KeeperBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOBS_MAX", 1)
    for number in range(20):
        directory = bed.worker(0, number)
        for file in range(20):
            (directory / str(file)).write_bytes(b"x")
        bed.keeper.bury(0, number)
    until(lambda: not bed.names(), "all are gone")
    assert {store.name: store.limit_count for store in bed.keeper.stores()}["temp directories being deleted"] == 1


def test_earlier_runs_go_at_the_start(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(3):
        fill(root / name_of(f"0.{number + 1}"))
    root.chmod(0o700)
    bed = KeeperBed(root)
    until(lambda: bed.names() == [], "what earlier runs left deleted")
    bed.close()


def test_a_locked_directory_is_waited_for(bed: KeeperBed) -> None:
    directory = fill(bed.worker(0, 1))
    lock = hold(directory, fcntl.LOCK_EX)
    bed.keeper.bury(0, 1)
    bed.keeper.ask(PEER, TempStats())
    assert bed.usage().files == 3, "still there"
    os.close(lock)
    assert until(lambda: not directory.exists(), "directory gone") < 1.0


def test_what_a_dead_supervisors_worker_left_running_is_killed_with_its_group(tmp_path: Path) -> None:
    """The helper holds the lock by the descriptor that it was forked with; its group's leader is dead."""
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    code = """
import fcntl, os, sys
sys.path.insert(0, sys.argv[2])
from protocol.temp_name import labelled
os.setpgid(0, 0)
path = labelled(sys.argv[1]); os.mkdir(path)
fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)
ready, told = os.pipe()
if os.fork() == 0:
    os.close(1); os.close(2); os.write(told, b"x")
    import signal
    while True: signal.pause()
os.read(ready, 1)
print(path, flush=True)
"""
    stem = root / f"gs-{OURS}-{RUN}-0.1"
    worker = subprocess.run(
        [sys.executable, "-c", code, str(stem), str(Path(__file__).parents[2])], capture_output=True, text=True
    )
    directory = Path(worker.stdout.strip())
    assert directory.exists(), worker.stderr
    with pytest.raises(BlockingIOError):
        hold(directory, fcntl.LOCK_EX)
    bed = KeeperBed(root, sweep_seconds=0.05)
    until(lambda: bed.names() == [], "the helper killed and the directory deleted")
    bed.close()


def test_stats_count_files_by_the_operation_that_made_them(bed: KeeperBed) -> None:
    fill(bed.worker(0, 1), files=4)
    other = bed.worker(1, 2)
    (other / "phash").mkdir()
    (other / "phash" / "sparse").write_bytes(b"")
    os.truncate(other / "phash" / "sparse", 1 << 30)
    (other / "kept" / "ocr").mkdir(parents=True)
    (other / "kept" / "ocr" / "model").write_bytes(os.urandom(8192))
    (other / "loose").write_bytes(b"x")
    bed.keeper.ask(PEER, TempStats())
    usage = bed.usage()
    assert usage.by_source == {"thumbnail": 4 * 4096, "phash": 0, "ocr": 8192, "worker": 4096}
    assert (usage.files, usage.bytes) == (7, sum(usage.by_source.values()))
    assert usage.root == str(bed.path)
    assert usage.leases == [], "their workers are dead"


def test_a_reap_is_answered_when_it_is_done(bed: KeeperBed) -> None:
    until(lambda: not bed.keeper._sweeping, "the first sweep over")
    fill(bed.path / name_of(), files=4)
    bed.keeper.ask(PEER, TempReap(id=1, dry_run=True))
    told = bed.report()
    assert (told.id, told.dry_run, told.files, len(bed.names())) == (1, True, 4, 1)
    bed.keeper.ask(PEER, TempReap(id=2))
    done = bed.report()
    assert (done.id, done.files, bed.names()) == (2, 4, [])


def test_a_full_disk_is_told_once_and_its_end_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(free_bytes=100 * MB, size_bytes=10**12)
    monkeypatch.setattr(TempRoot, "room", lambda self: room)
    bed = KeeperBed(tmp_path / "root", look_max_seconds=0.05)
    filled = bed.events.get(timeout=10)
    assert isinstance(filled, TempFilled) and filled.reason == "100 MB are free there, 256 MB wanted"
    room = Room(free_bytes=10**11, size_bytes=10**12)
    assert isinstance(bed.events.get(timeout=10), TempEased)
    assert bed.events.empty()
    bed.close()


def test_closing_deletes_what_the_last_workers_left(tmp_path: Path) -> None:
    bed = KeeperBed(tmp_path / "root")
    fill(bed.worker(0, 1))
    bed.close()
    assert bed.names() == []


def test_a_fault_with_one_directory_leaves_the_others_their_turn(
    bed: KeeperBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lock_alone

    def fail(name: str, parent: int) -> int:
        if "-0.1-" in name:
            raise ValueError("out of the blue")
        return real(name, parent)

    monkeypatch.setattr(module, "lock_alone", fail)
    first, second = bed.worker(0, 1), bed.worker(0, 2)
    bed.keeper.bury(0, 1)
    bed.keeper.bury(0, 2)
    until(lambda: not second.exists(), "the second one gone")
    assert first.exists()
    assert any("ValueError: out of the blue" in each for each in bed.complaints)


# ---- real workers --------------------------------------------------------------------------------


def test_a_real_worker_holds_its_directory_and_a_spill_of_libvips_is_counted() -> None:
    with tempfile.TemporaryDirectory(prefix="gs-") as place:
        bed = KeeperBed(Path(place, "t"), sweep_seconds=0.05)
        code = """
import os, sys
from workers.scratch import Scratch, own_directory
scratch = Scratch(own_directory(sys.argv[1]))
os.environ["VIPS_DISC_THRESHOLD"] = "1m"
scratch.enter("enlarge")
import pyvips
spilled = pyvips.Image.new_temp_file("%s.v")
pyvips.Image.black(2000, 2000).add(1).cast("uchar").write(spilled)
print("ready", flush=True)
sys.stdin.read()
"""
        stem = bed.root.worker_stem(3, 9)
        worker = subprocess.Popen(
            [sys.executable, "-c", code, stem], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdin is not None and worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        bed.keeper.ask(PEER, TempStats())
        usage = bed.usage()
        assert usage.open_deleted_bytes >= 4_000_000
        assert usage.by_source == {"enlarge": usage.bytes}
        (lease,) = usage.leases
        assert (lease.slot, lease.incarnation, lease.pid, lease.bytes) == (3, 9, worker.pid, usage.bytes)
        until(lambda: bed.keeper._sweep_at > time.monotonic(), "sweeps in between")
        assert os.path.isdir(lease.directory), "no sweep takes it from a live worker"
        worker.kill()
        worker.wait()
        bed.keeper.bury(3, 9)
        until(lambda: bed.names() == [], "gone with its worker")
        worker.stdin.close()
        worker.stdout.close()
        bed.close()


def test_a_worker_that_crashes_takes_what_it_started_along() -> None:
    with real_pool(entry="tests.mechanism.odd_worker") as pool:
        marker = os.path.join(pool.directory, "marker")
        worker = pool.start(endpoint=f"family:{marker}")
        wait_until(lambda: os.path.exists(marker) and os.path.getsize(marker) > 0, "helper started")
        helper = os.pidfd_open(int(Path(marker).read_text()))
        os.kill(worker.pid, 9)
        wait_until(worker.gone, "worker dead")
        worker.kill_group()
        assert ended(helper), "the helper is dead too"
        os.close(helper)


def test_a_group_whose_number_was_given_again_is_left_alone() -> None:
    with real_pool(entry="tests.mechanism.odd_worker") as pool:
        worker = pool.start(endpoint="exit:0")
        wait_until(worker.gone, "worker dead")
        tick = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 100)
        wait_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * 100 > tick + 2, "another tick of the clock")
        stranger = subprocess.Popen([sys.executable, "-Sc", "input()"], stdin=subprocess.PIPE, process_group=0)
        dead, worker.pid = worker.pid, stranger.pid
        worker.kill_group()
        worker.pid = dead
        stranger.communicate(b"\n")
        assert stranger.returncode == 0
