"""A story of stalled tasks: leases of one that do not grow, nobody is ended, and all goes on when it is over."""

import msgspec

from supervisor.policy import commands as c
from supervisor.policy import events as e
from tests.policy.story import Story, names


def test_stall_brakes_admission_and_nothing_else() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(200))
    for _ in range(4):
        story.clock.step(0.01)
        story.report(0)
    assert len(story.lease(0)) == 16
    feed, share = story.feed, 0.5

    def stalled(event: object) -> list[c.Command]:
        return feed(msgspec.structs.replace(event, stall_share=share) if isinstance(event, e.Sampled) else event)  # type: ignore[arg-type]

    story.feed = stalled  # type: ignore[method-assign]
    story.look()
    told = story.notes("stalled")
    assert not story.of(c.KillWorker) and story.states() == ["BUSY"] and len(story.lease(0)) == 16
    for _ in range(5):
        story.clock.step(0.01)
        story.report(0)
        assert len(story.lease(0)) == 1
    assert story.pool.state.slots[0].batch_size.size == 16, "it neither grows nor shrinks"
    assert len(story.notes("stalled")) <= 1 and told, "said, but not at every look"
    share = 0.05
    story.look()
    story.report(0)
    assert len(story.lease(0)) == 16


def test_the_kernels_word_brakes_until_it_has_been_silent() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(400))
    for _ in range(4):
        story.clock.step(0.01)
        story.report(0)
    assert len(story.lease(0)) == 16
    story.feed(e.TasksStalled())
    assert story.of(c.TakeSample), "the sizes are looked at, at once"
    [note] = story.notes("stalled")
    assert "10%" in note.message and note.figures == {"brake_share": 0.1}
    story.look()
    story.report(0)
    assert len(story.lease(0)) == 1 and story.pool.state.slots[0].batch_size.size == 16
    story.clock.step(2.0)
    assert not [said for said in story.feed(e.TasksStalled()) if isinstance(said, c.Note)], "told once, not twice"
    story.clock.step(2.4)
    story.look()
    story.report(0)
    assert len(story.lease(0)) == 1
    story.clock.step(0.2)
    story.look()
    story.report(0)
    assert len(story.lease(0)) > 1


def test_the_kernels_word_ends_nobody_and_wakes_a_pool_at_rest() -> None:
    story = Story(workers=2).start()
    story.look()
    assert not story.of(c.TakeSample)
    story.clock.step(0.5)
    story.feed(e.TasksStalled())
    assert story.of(c.TakeSample) and not story.of(c.KillWorker) and story.states() == ["IDLE", "IDLE"]
