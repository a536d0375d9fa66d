"""A profile of a worker: begun, ended in time, told to whoever asked; given up when the worker goes."""

from protocol import messages as m
from supervisor.policy import commands as c
from tests.policy.story import Story


def told_to_workers(story: Story) -> list[m.Profile]:
    """What workers were told about profiles last."""
    return [each.message for each in story.of(c.TellWorker) if isinstance(each.message, m.Profile)]


def profiled(number: int) -> m.Profiled:
    """What the worker of slot 1 tells at the end."""
    return m.Profiled(
        slot=1, incarnation=1, number=number, items=3, seconds=5.0, grown_bytes=30, grown_blocks=2, tracer_bytes=9,
        lines=[m.AllocatedLine("a.py:1", 20, 1), m.AllocatedLine("b.py:2", 10, 1)],
    )  # fmt: skip


def test_a_profile_begins_and_ends_in_time_and_is_told() -> None:
    story = Story().start()
    story.ask(m.MemoryProfile(id=5, slot=1, seconds=5.0, top=1))
    assert told_to_workers(story) == [m.Profile(number=1, action="begin")]
    assert story.of(c.Reply) == []
    story.clock.step(4)
    story.look()
    assert told_to_workers(story) == []
    assert (story.pool.next_deadline() or 0) <= story.clock.now + 1
    story.clock.step(1)
    story.look()
    assert told_to_workers(story) == [m.Profile(number=1, action="end", top=1)]
    story.say(1, profiled(1))
    answer = story.answer()
    assert isinstance(answer, m.ProfileReport)
    assert (answer.id, answer.pid, answer.lines) == (5, 101, [m.AllocatedLine("a.py:1", 20, 1)])
    story.say(1, profiled(1))
    assert story.of(c.Reply) == [], "it is over"


def test_one_profile_a_slot_and_only_of_a_worker_that_works() -> None:
    story = Story().start()
    story.ask(m.MemoryProfile(slot=1))
    wrong = [
        (m.MemoryProfile(slot=1), "busy"),
        (m.MemoryProfile(slot=7), "usage"),
        (m.MemoryProfile(slot=0, seconds=1e9), "usage"),
        (m.MemoryProfile(slot=0, top=0), "usage"),
    ]
    for request, code in wrong:
        story.ask(request)
        answer = story.answer()
        assert isinstance(answer, m.Problem)
        assert answer.code == code


def test_a_worker_that_dies_or_is_silent_takes_its_profile_with_it() -> None:
    story = Story(item_timeout_seconds=20.0).start()
    story.ask(m.MemoryProfile(id=5, slot=1, seconds=5.0))
    story.exit(1, -11)
    answer = story.answer()
    assert isinstance(answer, m.Problem)
    assert "it ended meanwhile" in answer.message
    story.ask(m.MemoryProfile(id=6, slot=0, seconds=5.0))
    heard = story.pass_time(40)
    replies = [each.answer for each in heard if isinstance(each, c.Reply)]
    assert [type(reply) for reply in replies] == [m.Problem]
    assert story.pool.state.profiles == {}
