"""Ready is more than alive: paused, draining, in an emergency, without workers, thrashing are not ready."""

import msgspec

from protocol import messages as m
from supervisor.policy.readiness import not_ready
from supervisor.policy.sizes import MB
from tests.policy.story import Story


def told(story: Story) -> tuple[m.Status, m.MemoryReport]:
    """Status and memory of the pool."""
    story.ask(m.StatusRequest())
    status = story.answer()
    story.ask(m.MemoryRequest())
    memory = story.answer()
    assert isinstance(status, m.Status)
    assert isinstance(memory, m.MemoryReport)
    return status, memory


def test_a_pool_at_work_is_ready() -> None:
    assert not_ready(*told(Story().start())) == []


def test_a_pool_without_workers_is_not() -> None:
    assert not_ready(*told(Story())) == ["no worker is ready"]


def test_paused_draining_and_emergency_are_not() -> None:
    story = Story().start()
    story.ask(m.PauseWork(reason="lunch"))
    assert not_ready(*told(story)) == ["it is paused: lunch"]
    story.ask(m.ResumeWork())
    assert not_ready(*told(story)) == []
    story.look(available=1)
    assert not_ready(*told(story)) == ["memory level emergency"]
    story = Story().start()
    story.ask(m.Stop())
    assert "it is draining" in not_ready(*told(story))


def test_thrashing_is_not() -> None:
    status, memory = told(Story().start())
    swapping = msgspec.structs.replace(memory, swap_in_bytes_per_second=8 * MB)
    stalled = msgspec.structs.replace(memory, stall_share=0.6)
    assert "8.0 MB a second" in not_ready(status, swapping)[0]
    assert "60% of the time" in not_ready(status, stalled)[0]
    assert not_ready(status, msgspec.structs.replace(memory, stall_share=0.1)) == []
