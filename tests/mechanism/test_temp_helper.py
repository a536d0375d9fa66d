"""A very large directory is deleted by a process of its own: real files, a real process."""

import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.messages import TempReap
from supervisor.mechanism.deleting.tree import Tally
from supervisor.mechanism.temp import reaper
from supervisor.mechanism.temp.directory import lock_alone
from supervisor.mechanism.temp.reaper import Job
from tests.mechanism.temp_bed import Bed, KeeperBed, fill, name_of, until

OURSELVES = 40
FILES = 3_000


@pytest.fixture
def bed(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr(reaper, "FILES_BY_OURSELVES", OURSELVES)
    bed = Bed(memory / "root")
    bed.reaper.may_help = True
    yield bed
    bed.root.close()


def children() -> list[int]:
    """Returns the processes that this thread started and that are there, zombies too."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def begun(bed: Bed, files: int = FILES) -> tuple[Tally, Job, int]:
    """Has a directory in the trash, and its deletion handed over; returns also the descriptor that holds its lock."""
    directory = fill(bed.path / name_of(), files)
    lock = lock_alone(directory.name, bed.root.fd)
    made = bed.reaper.trash(directory.name, lock)
    assert made is not None
    _, tally, job = made
    steps = 0
    while next(job) is None:
        steps += 1
    assert steps == OURSELVES
    return tally, job, lock


def end(job: Job) -> list[object]:
    """Returns what was still yielded."""
    return list(job)


def test_a_process_deletes_what_is_very_large_and_all_is_counted(bed: Bed) -> None:
    before = children()
    tally, job, _ = begun(bed)
    assert len(children()) == len(before) + 1
    assert None not in end(job), "it only waited"
    assert (tally.files, tally.bytes, tally.faults) == (FILES, FILES * 4096, [])
    assert (bed.names(), bed.complaints, children()) == ([], [], before)
    assert bed.reaper.may_help and bed.reaper.reaped_files == FILES


def test_what_a_killed_helper_leaves_is_deleted_without_one(bed: Bed) -> None:
    before = children()
    _, job, _ = begun(bed)
    (helper,) = set(children()) - set(before)
    os.kill(helper, signal.SIGKILL)
    assert None in end(job), "the rest was deleted here"
    assert (bed.names(), bed.complaints, children()) == ([], [], before)


def test_a_helper_that_cannot_be_started_is_done_without(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = fill(bed.path / name_of(), FILES)
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    assert bed.sweep().files == FILES
    assert not directory.exists() and bed.names() == []


def test_one_that_is_given_up_ends_and_lets_the_lock_go(bed: Bed) -> None:
    before = children()
    _, job, _ = begun(bed)
    job.close()
    assert children() == before
    (left,) = bed.names()
    again = os.open(bed.path / left, os.O_RDONLY)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(again)
    bed.sweep()
    assert bed.names() == []


def test_a_helper_does_not_outlive_who_started_it(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)  # so it is told that init started it, and sees that it did not
    tally, job, _ = begun(bed)
    while next(job) is not None:
        pass
    assert tally.files <= OURSELVES + 1, "it told nothing and deleted next to nothing"
    end(job)
    assert bed.names() == []


def test_what_it_cannot_delete_is_told(bed: Bed) -> None:
    if os.geteuid() != 0 or os.system("command -v chattr > /dev/null") != 0:
        pytest.skip("needs a file that not even its owner can delete")
    directory = bed.path / name_of()
    fill(directory, FILES)
    kept = directory / "thumbnail" / "kept"
    kept.write_bytes(b"kept")
    if os.system(f"chattr +i '{kept}' 2> /dev/null") != 0:
        pytest.skip("this file system has no immutable files")
    try:
        bed.sweep()
        (told,) = bed.complaints
        assert "kept: Operation not permitted" in told
    finally:
        (found,) = bed.path.rglob("kept")
        os.system(f"chattr -i '{found}'")
    bed.sweep()
    assert bed.names() == []


def test_a_keeper_is_there_for_others_meanwhile_and_ends_with_its_helper(memory: Path) -> None:
    keeper = KeeperBed(memory / "root")
    try:
        many(keeper.worker(0, 1), 30_000)
        keeper.keeper.bury(0, 1)
        until(lambda: bool(_helpers(keeper)), "a helper at work")
        small = fill(keeper.worker(1, 1))
        keeper.keeper.bury(1, 1)
        until(lambda: not small.exists(), "the small directory out of sight")
    finally:
        keeper.close()
    assert _helpers(keeper) == []


def test_a_hundred_thousand_files_of_one_worker_go_and_are_counted(memory: Path) -> None:
    keeper = KeeperBed(memory / "root")
    try:
        directory = keeper.worker(0, 1)
        many(directory, 100_000)
        keeper.keeper.bury(0, 1)
        until(lambda: not directory.exists(), "it is out of sight")
        until(lambda: keeper.names() == [], "it is deleted", 60)
        until(lambda: keeper.keeper.reaped_files == 100_000, "all are counted")
        keeper.keeper.ask(b"peer", TempReap(id=1))
        assert keeper.report().files == 0, "nothing is left to reap"
        assert keeper.complaints == []
    finally:
        keeper.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: a slow disk takes a minute to make so many files."""
    shared = "/dev/shm"
    if not os.access(shared, os.W_OK) or os.statvfs(shared).f_favail < 200_000:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as place:
        yield Path(place)


def many(directory: Path, files: int) -> None:
    """Makes so many empty files."""
    parent = os.open(directory, os.O_RDONLY)
    for number in range(files):
        os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY, dir_fd=parent))
    os.close(parent)


def _helpers(bed: Bed) -> list[str]:
    """Returns the processes that hold a directory of this root open, but us."""
    found = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.parts[2] != str(os.getpid()) and os.readlink(descriptor).startswith(str(bed.path)):
                found.append(str(descriptor))
        except OSError:
            pass  # it was gone, or is somebody else's
    return found
