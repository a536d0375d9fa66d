"""Temp files of operations: tracked, deleted whatever happens, each below the name of who made it."""

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from tests.mechanism.performing import Bench, step, values, warnings
from workers import operations
from workers.cleanup import CleanupRegistry, Moment
from workers.operations import Operation, Work
from workers.scratch import Scratch, TempFileTracker, own_directory


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    directory = tmp_path / "worker"
    directory.mkdir()
    return Scratch(str(directory))


def left(scratch: Scratch) -> list[str]:
    """Returns the files below the worker's directory."""
    return sorted(path.name for path in Path(scratch.directory).rglob("*") if path.is_file())


def test_what_is_tracked_is_deleted_and_what_is_untracked_stays(scratch: Scratch) -> None:
    with scratch.tracker("ocr") as tracker:
        kept = tracker.untrack(tracker.new(".txt"))
        directory = tracker.new_directory()
        Path(directory, "deep").mkdir()
        Path(directory, "deep", "file").write_text("x")
        later = tracker.track(os.path.join(tracker.directory, "not made yet"))
        tracker.track(os.path.join(tracker.directory, "never made"))
        Path(later).write_text("x")
        assert len(tracker.tracked) == 3
    assert left(scratch) == [os.path.basename(kept)]
    assert os.path.dirname(kept) == os.path.join(scratch.directory, "ocr")


def test_an_exception_stops_no_deletion_and_stays_the_first(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), scratch.tracker("ocr") as tracker:
        tracker.new()
        raise ZeroDivisionError
    assert left(scratch) == []
    real = os.unlink
    refused: list[str] = []

    def refuse(path: str) -> None:
        if refused and path == refused[0]:
            raise PermissionError(1, "not permitted", path)
        real(path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(ZeroDivisionError) as raised, scratch.tracker("ocr") as tracker:
        tracker.new()
        refused.append(tracker.new())
        tracker.new()
        raise ZeroDivisionError
    assert len(left(scratch)) == 1, "one failure stops none of the others"
    assert "not permitted" in raised.value.__notes__[0]
    with pytest.raises(OSError, match="could not be deleted"), scratch.tracker("ocr") as tracker:
        tracker.track(refused[0])


def test_asynchronous_code_has_the_same(scratch: Scratch) -> None:
    async def work() -> None:
        async with scratch.tracker("model") as tracker:
            tracker.new()
            await asyncio.sleep(0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(work())
    assert left(scratch) == []


@pytest.mark.parametrize("moment", list(Moment))
def test_a_forgotten_tracker_is_cleaned_at_its_moment(scratch: Scratch, moment: Moment) -> None:
    tracker = scratch.tracker("ocr", moment)
    tracker.new()
    order = [Moment.ITEM, Moment.LEASE, Moment.WORKER]
    for earlier in order[: order.index(moment)]:
        scratch.cleanup.run(earlier)
        assert len(left(scratch)) == 1, f"{earlier} is too early"
    assert scratch.cleanup.run(moment) == []
    assert left(scratch) == []


def test_a_tracker_that_ended_is_forgotten_by_the_registry(scratch: Scratch) -> None:
    for _ in range(3):
        with scratch.tracker("ocr"):
            pass
    assert not scratch.cleanup.has(Moment.ITEM)


def test_only_the_workers_own_directory_may_be_tracked(scratch: Scratch, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    tracker = scratch.tracker("ocr")
    os.symlink(precious, os.path.join(tracker.directory, "link"))
    for path in (
        precious / "photo",
        os.path.join(tracker.directory, "..", "x"),
        os.path.join(tracker.directory, "link", "x"),
    ):
        with pytest.raises(ValueError, match="only what is there may be tracked"):
            tracker.track(str(path))
    tracker.track(os.path.join(tracker.directory, "link"))
    assert tracker.clean() == []
    assert precious.is_dir(), "the link goes, not what it leads to"


def test_libraries_that_were_never_told_land_there_too(scratch: Scratch) -> None:
    scratch.enter("ocr")
    with tempfile.NamedTemporaryFile(delete=False) as file:
        assert os.path.dirname(file.name) == os.path.join(scratch.directory, "ocr") == os.environ["TMPDIR"]
    scratch.enter("../../kept")
    assert os.path.dirname(os.environ["TMPDIR"]) == scratch.directory
    scratch.cleanup.run(Moment.LEASE)
    assert left(scratch) == []
    assert os.path.isdir(os.environ["TMPDIR"]), "the directories of sources outlive the lease"


def test_the_directory_goes_with_the_worker_or_is_emptied_where_a_sandbox_forbids_that(tmp_path: Path) -> None:
    for keep in (False, True):
        directory = tmp_path / f"worker {keep}"
        (directory / "sub").mkdir(parents=True)
        (directory / "sub" / "file").write_text("x")
        cleanup = CleanupRegistry()
        Scratch(str(directory), cleanup, keep_directory=keep)
        assert cleanup.run(Moment.WORKER) == []
        assert directory.exists() is keep
        assert not keep or os.listdir(directory) == []


def test_a_worker_makes_its_directory_with_its_label_in_the_name(tmp_path: Path) -> None:
    path = own_directory(str(tmp_path / "gs-0badcafe-12345678-0.1"))
    assert os.path.basename(path).startswith(f"gs-0badcafe-12345678-0.1-{os.getpid()}-")
    assert os.stat(path).st_mode & 0o777 == 0o700
    with pytest.raises(FileExistsError):
        own_directory(str(tmp_path / "gs-0badcafe-12345678-0.1"))


def test_an_operation_that_fails_leaves_nothing_and_its_successor_has_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def spill(work: Work, parameters: object) -> dict[str, object]:
        path = work.scratch.new(".tmp")
        seen.append(path)
        tempfile.mkstemp()
        if len(seen) == 2:
            raise RuntimeError("half-way")
        return {"directory": os.path.basename(os.path.dirname(path))}

    mine = Operation(name="spill", version=1, reads="name", run=spill)
    monkeypatch.setattr("workers.recipe.load", lambda name: mine if name == "spill" else operations.load(name))
    bench = Bench(tmp_path)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"x")
    first = bench.run(os.fsencode(photo), step("spill"))
    assert (first.outcome, values(first), warnings(first)) == ("done", {"spill": {"directory": "spill"}}, [])
    assert bench.run(os.fsencode(photo), step("spill")).outcome == "failed"
    assert not any(os.path.exists(path) for path in seen)
    assert len(left(bench.context.scratch)) == 2, "what nobody tracked waits for the end of the lease"
    bench.context.scratch.clear()
    assert left(bench.context.scratch) == []


def test_a_full_temp_disk_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(work: Work, parameters: object) -> None:
        raise OSError(28, "No space left on device")

    mine = Operation(name="fill", version=1, reads="name", run=fill)
    monkeypatch.setattr("workers.recipe.load", lambda name: mine)
    bench = Bench(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"x")
    report = bench.run(os.fsencode(tmp_path / "photo.jpg"), step("fill"))
    assert report.outcome == "machine"
    assert report.error is not None and "is full" in report.error.message


def test_a_tracker_is_bounded(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.scratch.MAX_TRACKED", 2)
    tracker = TempFileTracker(scratch.enter("ocr"), "ocr")
    tracker.new()
    tracker.new()
    with pytest.raises(ValueError, match="ocr tracks 2 temp files already"):
        tracker.new()
