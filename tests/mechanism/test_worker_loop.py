"""One real worker behind a real ROUTER: leases in, reports out, and what is said in between."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.messages import Granted, Heartbeat, Memory, Quit, Ready, Recipe, Report, Root, Shrink, Trim, Trimmed
from protocol.paths import to_token
from protocol.recorder import RecorderReader
from supervisor.mechanism.processes import WorkerProcess
from tests.mechanism.real_pool import SLOTS, RealPool, ended, real_pool, recipe, wait_until

NOOP = recipe("noop")


def nap(seconds: float) -> Recipe:
    """A recipe that does nothing for so long an item."""
    return recipe("misbehave.hang", seconds=seconds)


@pytest.fixture
def pool() -> Iterator[RealPool]:
    with real_pool([NOOP, nap(1.0)]) as pool:
        yield pool


@pytest.fixture
def worker(pool: RealPool) -> WorkerProcess:
    worker = pool.start()
    pool.receive(Ready)
    return worker


def names(count: int) -> list[str]:
    return [f"image {number}.jpg" for number in range(1, count + 1)]


def ids(reports: list[Report]) -> tuple[list[int], list[int]]:
    """The items that are over and those handed back, in order."""
    over = [item.id for report in reports for item in report.items]
    return over, [number for report in reports for number in report.handed_back]


def listed(stems: list[str]) -> list[Granted]:
    return [Granted(number, 0, stem) for number, stem in enumerate(stems, 1)]


def wait_for_item(pool: RealPool, item: int) -> None:
    """Waits until the flight recorder of slot 0 names an item."""
    reader = RecorderReader(pool.recorder_path, SLOTS)
    try:
        wait_until(lambda: reader.progress(0)[1] == item, f"item {item} in progress")
    finally:
        reader.close()


def test_ready_tells_who_it_is_and_what_it_weighs(pool: RealPool) -> None:
    worker = pool.start(slot=2)
    ready = pool.receive(Ready)
    assert (ready.slot, ready.incarnation, ready.pid) == (2, 1, worker.pid)
    assert 5_000_000 < ready.memory.heap_bytes < ready.memory.rss_bytes < 200_000_000


def test_a_worker_steps_behind_the_supervisor(pool: RealPool) -> None:
    worker = pool.start(nice=15, oom_score_adj=700)
    pool.receive(Ready)
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == max(15, os.getpriority(os.PRIO_PROCESS, 0))
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "700\n"
    assert os.getpgid(worker.pid) == worker.pid
    assert "Max core file size        0 " in Path(f"/proc/{worker.pid}/limits").read_text()


def test_a_lease_of_items_is_reported_in_order_once(pool: RealPool, worker: WorkerProcess) -> None:
    lease = pool.grant(worker, NOOP, names(256))
    reports = pool.reports(lease)
    assert ids(reports) == (list(range(1, 257)), [])
    assert {item.outcome for report in reports for item in report.items} == {"done"}
    assert [report.finished for report in reports] == [False] * (len(reports) - 1) + [True]
    assert isinstance(reports[-1].memory, Memory)


def test_leases_that_wait_are_worked_off_in_order(pool: RealPool, worker: WorkerProcess) -> None:
    leases = [pool.grant(worker, NOOP, names(3)) for _ in range(3)]
    assert [pool.receive(Report).lease for _ in leases] == leases


def test_slow_items_are_reported_before_the_lease_ends(pool: RealPool, worker: WorkerProcess) -> None:
    lease = pool.grant(worker, nap(0.15), names(3))
    reports = pool.reports(lease)
    assert [[item.id for item in report.items] for report in reports] == [[1], [2], [3]]


def test_the_recorder_names_the_item_while_it_is_in_progress(pool: RealPool, worker: WorkerProcess) -> None:
    pool.grant(worker, nap(3600), ["image 1.jpg"])
    wait_for_item(pool, 1)
    reader = RecorderReader(pool.recorder_path, SLOTS)
    record = reader.read(0)
    assert (record.incarnation, record.item, record.path) == (1, 1, f"{pool.photos}/image 1.jpg")
    assert record.version == "misbehave.hang:1"
    assert abs(record.started - time.monotonic()) < 10
    worker.kill()
    assert ended(worker)
    assert reader.read(0).item == 1, "it outlives the worker"
    reader.close()


def test_the_recorder_counts_and_names_nothing_when_idle(pool: RealPool, worker: WorkerProcess) -> None:
    pool.reports(pool.grant(worker, NOOP, names(40)))
    reader = RecorderReader(pool.recorder_path, SLOTS)
    _, item, _, _, done = reader.progress(0)
    assert (item, done) == (0, 40)
    reader.close()


def test_paths_are_the_root_joined_with_the_name_below_the_prefix(pool: RealPool, worker: WorkerProcess) -> None:
    stems = ["gallery/p.jpg", to_token(b"gallery/\xff.jpg")]
    for name in (b"p.jpg", b"\xff.jpg"):
        Path(os.fsdecode(os.path.join(os.fsencode(pool.photos), name))).write_bytes(b"x")
    lease = pool.grant(worker, nap(0.01), [], roots=[Root(pool.photos, "gallery")], items=listed(stems))
    items = [item for report in pool.reports(lease) for item in report.items]
    assert [(item.id, item.outcome, item.size_bytes) for item in items] == [(1, "done", 1), (2, "done", 1)]


def test_shrink_keeps_so_many_and_hands_the_rest_back(pool: RealPool, worker: WorkerProcess) -> None:
    lease = pool.grant(worker, nap(0.3), names(9))
    wait_for_item(pool, 1)
    pool.tell(worker, Shrink(lease=lease + 1, keep=0))
    pool.tell(worker, Shrink(lease=lease, keep=2))
    assert ids(pool.reports(lease)) == ([1, 2, 3], [4, 5, 6, 7, 8, 9])
    assert not worker.gone()


def test_trim_is_done_between_items_and_answered(pool: RealPool, worker: WorkerProcess) -> None:
    lease = pool.grant(worker, nap(0.1), names(2))
    wait_for_item(pool, 1)
    pool.tell(worker, Trim())
    trimmed = pool.receive(Trimmed)
    assert 0 < trimmed.after_bytes <= trimmed.before_bytes
    assert 0 < trimmed.seconds < 5
    assert ids(pool.reports(lease))[0][-1] == 2


def test_quit_finishes_the_item_and_hands_back_the_rest_and_what_waits(pool: RealPool, worker: WorkerProcess) -> None:
    first = pool.grant(worker, nap(0.2), names(3))
    second = pool.grant(worker, NOOP, names(2))
    wait_for_item(pool, 1)
    pool.tell(worker, Quit())
    assert ids(pool.reports(first)) == ([1], [2, 3])
    assert ids(pool.reports(second)) == ([], [1, 2])
    assert ended(worker)
    assert worker.exit_code(30) == 0
    assert not [name for name in os.listdir(pool.directory) if name.startswith("temp-1")], "its temp directory is gone"


def test_sigterm_finishes_the_item_in_progress(pool: RealPool, worker: WorkerProcess) -> None:
    lease = pool.grant(worker, nap(0.2), names(3))
    wait_for_item(pool, 1)
    worker.terminate()
    assert ids(pool.reports(lease)) == ([1], [2, 3])
    assert ended(worker)
    assert worker.exit_code(30) == 0


def test_sigterm_ends_an_idle_worker_at_once(pool: RealPool, worker: WorkerProcess) -> None:
    pool.reports(pool.grant(worker, NOOP, names(1)))
    worker.terminate()
    assert ended(worker)
    assert worker.exit_code(30) == 0


def test_ctrl_c_does_not_reach_it(pool: RealPool, worker: WorkerProcess) -> None:
    lease = pool.grant(worker, nap(0.1), names(1))
    wait_for_item(pool, 1)
    os.kill(worker.pid, signal.SIGINT)
    assert pool.reports(lease)[-1].items[0].id == 1
    assert not worker.gone()


@pytest.mark.parametrize("frames", [[b"nonsense"], [b'{"type":"quit"}', b"more"], [b'{"type":"grant"}']])
def test_nonsense_ends_it_with_a_status_of_its_own(pool: RealPool, worker: WorkerProcess, frames: list[bytes]) -> None:
    pool.tell_frames(worker, frames)
    assert ended(worker)
    assert worker.exit_code(30) == 70


def test_a_recipe_it_cannot_compile_is_not_the_images_fault(pool: RealPool, worker: WorkerProcess) -> None:
    [report] = pool.reports(pool.grant(worker, recipe("no-such-operation"), names(2)))
    assert [item.outcome for item in report.items] == ["machine", "machine"]
    assert report.items[0].error is not None and "no-such-operation" in report.items[0].error.message
    assert not worker.gone()


def test_heartbeats_come_between_items_and_name_the_next(pool: RealPool) -> None:
    worker = pool.start(heartbeat_seconds=0.05, report_seconds=3600.0)
    pool.receive(Ready)
    pool.grant(worker, nap(0.06), names(4))
    beat = pool.receive(Heartbeat)
    while beat.items_done == 0:  # one may be due before the first item has begun
        beat = pool.receive(Heartbeat)
    assert beat.current == beat.items_done + 1 <= 4
    assert beat.memory.rss_bytes > 0


def test_temp_files_of_a_lease_are_gone_when_it_settles(pool: RealPool, worker: WorkerProcess) -> None:
    left = Path(pool.temp_of(worker), "left-over")
    left.mkdir()
    (left / "file").write_text("x")
    pool.reports(pool.grant(worker, NOOP, names(1)))
    assert not left.exists()
