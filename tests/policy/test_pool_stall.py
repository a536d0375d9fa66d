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
    assert not story.of(c.KillWorker) and story.states() == ["BUSY"] and len(story.lease(0)) == 16
    for _ in range(5):
        story.clock.step(0.01)
        story.report(0)
        assert len(story.lease(0)) == 1
    assert story.pool.state.slots[0].batch_size.size == 16, "it neither grows nor shrinks"
    share = 0.05
    story.look()
    story.report(0)
    assert len(story.lease(0)) == 16
