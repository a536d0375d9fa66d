"""An idle pool shrinks to its minimum, trims what stays, and grows again with the work."""

from typing import Any

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from tests.policy.story import Story, names


def idle_story(**settings: Any) -> Story:
    """Three workers; the pool shrinks after ten seconds without work."""
    return Story(workers=3, **{"idle_shrink_seconds": 10.0, "min_workers": 1, **settings}).start()


def rested() -> Story:
    """The pool after it shrank."""
    story = idle_story()
    story.pass_time(11)
    for slot in (0, 1):
        story.exit(slot, 0)
    return story


def test_after_a_time_without_work_all_but_the_minimum_are_let_go() -> None:
    story = idle_story()
    story.pass_time(9)
    assert story.states() == ["IDLE", "IDLE", "IDLE"]
    heard = story.pass_time(2)
    assert story.states() == ["STOPPING", "STOPPING", "IDLE"]
    assert [command.slot for command in heard if isinstance(command, c.TerminateWorker)] == [0, 1]
    assert [command.slot for command in heard if isinstance(command, c.TellWorker)] == [2], "who stays trims"
    assert any(isinstance(command, c.GiveBackMemory) for command in heard)
    assert len([note for note in heard if isinstance(note, c.Note) and note.kind == "rest"]) == 1
    for slot in (0, 1):
        story.exit(slot, 0)
    story.pass_time(60)
    assert story.states() == ["-", "-", "IDLE"], "who rests is not started again"
    assert story.pool.state.totals["restarts"] == 0


def test_the_fattest_are_let_go() -> None:
    story = idle_story()
    for _ in range(12):
        story.clock.step(1)
        story.look({0: 60, 1: 62, 2: 80})
    assert story.states() == ["IDLE", "STOPPING", "STOPPING"]


def test_work_wakes_as_many_as_it_needs() -> None:
    story = rested()
    story.submit("b1", names(2))
    assert story.states() == ["STARTING", "-", "BUSY"], "the second image takes one more worker"
    assert story.lease(2) == [1]
    story.ready(0)
    story.look()
    assert story.lease(0) == [2]


def test_much_work_wakes_everybody_at_once() -> None:
    story = rested()
    story.submit("b1", names(100))
    assert story.states() == ["STARTING", "STARTING", "BUSY"]


def test_a_worker_that_is_still_leaving_is_replaced_when_it_is_gone() -> None:
    story = idle_story()
    story.pass_time(11)
    story.submit("b1", names(100))
    assert story.states() == ["STOPPING", "STOPPING", "BUSY"]
    story.exit(0, 0)
    assert story.states() == ["STARTING", "STOPPING", "BUSY"]


def test_a_paused_pool_wakes_nobody_until_it_goes_on() -> None:
    story = rested()
    story.ask(m.PauseWork())
    story.submit("b1", names(100))
    assert story.states() == ["-", "-", "IDLE"]
    story.ask(m.ResumeWork())
    story.look()
    assert story.states() == ["STARTING", "STARTING", "BUSY"]


def test_the_pool_sleeps_until_it_is_time_and_does_not_spin_afterwards() -> None:
    story = idle_story()
    deadline = story.pool.next_deadline()
    assert deadline is not None
    assert deadline <= story.clock.now + 10
    story.pass_time(11)
    for slot in (0, 1):
        story.exit(slot, 0)
    story.look()
    assert (story.pool.next_deadline() or 0) > story.clock.now


def test_a_pool_that_shall_not_shrink_keeps_everybody() -> None:
    story = idle_story(idle_shrink_seconds=0.0)
    story.pass_time(1000, every=10)
    assert story.states() == ["IDLE", "IDLE", "IDLE"]


def test_a_worker_that_dies_while_others_rest_is_replaced() -> None:
    story = rested()
    story.exit(2, -9)
    story.feed(e.Tick())
    assert story.states() == ["-", "-", "STARTING"]
