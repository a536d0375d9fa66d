"""What the whole holds at rest: the least of the supervisor, the workers' baselines, and the parts as they are."""

from supervisor.policy import events as e
from supervisor.policy.sizes import MB
from tests.policy.story import BASELINE_BYTES, OWN_BYTES, Story


def look(story: Story, gateway_mb: int) -> None:
    parts = [e.PartSample(role="supervisor", pid=1, rss_bytes=OWN_BYTES, shared_bytes=0)]
    if gateway_mb:
        parts.append(e.PartSample(role="gateway", pid=2, rss_bytes=gateway_mb * MB, shared_bytes=5 * MB))
    own = sum(part.rss_bytes - part.shared_bytes for part in parts)
    story.feed(
        e.Sampled(
            workers=[
                e.WorkerSample(
                    slot=slot.index, incarnation=slot.worker.incarnation, rss_bytes=BASELINE_BYTES, shared_bytes=0,
                    item=0, item_started=0.0, items_done=0,
                )
                for slot in story.pool.state.slots
                if slot.worker is not None
            ],
            own_bytes=own, cgroup_used_bytes=None, budget_bytes=story.budget_bytes, available_bytes=10_000 * MB,
            parts=parts,
        )
    )  # fmt: skip


def test_a_part_that_comes_later_belongs_to_what_is_held_at_rest() -> None:
    story = Story(workers=2).start()
    look(story, 0)
    assert story.pool.state.rest_bytes() == OWN_BYTES + 2 * BASELINE_BYTES
    look(story, 45)
    assert story.pool.state.rest_bytes() == OWN_BYTES + 40 * MB + 2 * BASELINE_BYTES == story.pool.state.used_bytes
    look(story, 0)
    assert story.pool.state.rest_bytes() == OWN_BYTES + 2 * BASELINE_BYTES, "it has gone"
