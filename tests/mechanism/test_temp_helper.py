"""A very large directory is deleted by a process of its own: real files, a real process."""

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.mechanism.deleting.tree import Tally
from supervisor.mechanism.temp import reaper
from supervisor.mechanism.temp.directory import lock_alone
from supervisor.mechanism.temp.reaper import Job
from tests.mechanism.temp_bed import Bed, KeeperBed, fill, name_of, until

OURSELVES = 40
FILES = 3_000


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr(reaper, "FILES_BY_OURSELVES", OURSELVES)
    bed = Bed(tmp_path / "root")
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
    _, job, _ = begun(bed, 20_000)
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


def test_a_keeper_is_there_for_others_meanwhile_and_ends_with_its_helper(tmp_path: Path) -> None:
    keeper = KeeperBed(tmp_path / "root")
    try:
        big = keeper.worker(0, 1)
        for number in range(30_000):
            os.close(os.open(big / str(number), os.O_CREAT | os.O_WRONLY))
        keeper.keeper.bury(0, 1)
        until(lambda: bool(_helpers(keeper)), "a helper at work")
        small = fill(keeper.worker(1, 1))
        keeper.keeper.bury(1, 1)
        until(lambda: not small.exists(), "the small directory out of sight")
    finally:
        keeper.close()
    assert _helpers(keeper) == []


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
