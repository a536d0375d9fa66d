"""Clean-up tasks: in order, each in its moment, none stopped by another."""

import asyncio
import os
from pathlib import Path

import pytest

from workers import cleanup as module
from workers.cleanup import MAX_TASKS, CleanupRegistry, Moment
from workers.temp import clear_directory, remove_directory


def test_tasks_run_by_priority_then_by_age_in_their_moment_alone() -> None:
    ran: list[str] = []
    registry = CleanupRegistry()
    registry.add(Moment.ITEM, "late", lambda: ran.append("late"), priority=200)
    registry.add(Moment.ITEM, "first", lambda: ran.append("first"))
    registry.add(Moment.ITEM, "second", lambda: ran.append("second"))
    registry.add(Moment.LEASE, "other", lambda: ran.append("other"))
    assert registry.run(Moment.ITEM) == []
    assert ran == ["first", "second", "late"]
    registry.run(Moment.ITEM)
    assert len(ran) == 6, "a task stays until it is removed"


def test_a_failing_task_stops_no_other_and_is_told() -> None:
    ran: list[str] = []

    def fail() -> None:
        raise OSError("disk gone")

    registry = CleanupRegistry()
    registry.add(Moment.LEASE, "scratch files", fail)
    registry.add(Moment.LEASE, "rest", lambda: ran.append("rest"))
    assert registry.run(Moment.LEASE) == ["clean-up 'scratch files' failed: OSError: disk gone"]
    assert ran == ["rest"]


def test_asynchronous_tasks_are_awaited_and_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    async def close() -> None:
        await asyncio.sleep(0)
        ran.append("closed")

    async def hang() -> None:
        await asyncio.Event().wait()

    registry = CleanupRegistry()
    registry.add(Moment.WORKER, "model", close)
    assert registry.run(Moment.WORKER) == []
    assert ran == ["closed"]
    monkeypatch.setattr(module, "ASYNC_SECONDS", 0.01)
    registry.add(Moment.WORKER, "hung", hang)
    assert registry.run(Moment.WORKER) == ["clean-up 'hung' failed: TimeoutError: "]
    assert ran == ["closed", "closed"]


def test_once_and_remove_forget_tasks() -> None:
    ran: list[str] = []
    registry = CleanupRegistry()
    registry.add(Moment.ITEM, "once", lambda: ran.append("once"), once=True)
    registry.add(Moment.ITEM, "gone", lambda: ran.append("gone"))
    registry.remove(Moment.ITEM, "gone")
    assert registry.has(Moment.ITEM)
    registry.run(Moment.ITEM)
    assert not registry.has(Moment.ITEM)
    registry.run(Moment.ITEM)
    assert ran == ["once"]


def test_tasks_are_bounded() -> None:
    registry = CleanupRegistry()
    for number in range(MAX_TASKS):
        registry.add(Moment.ITEM, f"task {number}", list)
    with pytest.raises(ValueError, match="1000 tasks wait for the end"):
        registry.add(Moment.ITEM, "one more", list)
    registry.add(Moment.LEASE, "another moment", list)


def test_a_temp_directory_is_emptied_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    temp = tmp_path / "temp"
    (temp / "deep" / "er").mkdir(parents=True)
    (temp / "deep" / "er" / "file").write_text("x")
    os.symlink(outside, temp / "link")
    clear_directory(str(temp))
    assert os.listdir(temp) == []
    assert (outside / "kept").exists()
    remove_directory(str(temp))
    assert not temp.exists()
