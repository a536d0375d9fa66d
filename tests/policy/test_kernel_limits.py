"""The kernel's limit follows the hard one from above, and is written only where it matters."""

import msgspec

from supervisor.policy import commands as c
from supervisor.policy.kernel_limits import SLACK_BYTES, follow
from tests.policy.story import Story, names


def made(kernel_limits: bool = True) -> Story:
    story = Story(workers=2)
    story.pool.state.settings = msgspec.structs.replace(story.pool.state.settings, kernel_limits=kernel_limits)
    return story.start()


def test_every_worker_gets_one_well_above_its_hard_limit_and_keeps_it_while_little_changes() -> None:
    story = made()
    state = story.pool.state
    for slot in state.slots:
        worker = slot.worker
        assert worker is not None
        assert worker.kernel_limit_bytes >= state.limits(slot).hard_bytes + SLACK_BYTES
    state.budget_bytes += 1_000_000
    assert follow(state) == []


def test_it_rises_before_the_grant_that_needs_it() -> None:
    story = made()
    story.submit("b", names(1))
    state = story.pool.state
    state.budget_bytes *= 2
    [first, *_] = follow(state)
    assert isinstance(first, c.LimitWorker)
    assert first.limit_bytes >= state.limits(state.slots[first.slot]).hard_bytes + SLACK_BYTES
    assert follow(state) == []
    state.budget_bytes //= 2
    assert {each.slot for each in follow(state) if isinstance(each, c.LimitWorker)} == {0, 1}, (
        "and comes down when it is far too high"
    )


def test_without_groups_nothing_is_asked_for() -> None:
    story = made(kernel_limits=False)
    assert follow(story.pool.state) == []
    assert all(slot.worker is not None and not slot.worker.kernel_limit_bytes for slot in story.pool.state.slots)
