"""The supervisor above its limit cleans up and says so; the template above its limit is renewed, once."""

from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.own_limits import OwnWatch
from supervisor.policy.sizes import MB
from supervisor.policy.watch_settings import WatchSettings
from tests.policy.story import Story

LIMITS = WatchSettings(max_supervisor_rss_bytes=100 * MB, max_template_rss_bytes=80 * MB)


def look(watch: OwnWatch, supervisor: int, template: int, now: float, pid: int = 2) -> list[str]:
    """What a look at so many MB calls for, by the names of the commands."""
    parts = [
        e.PartSample(role="supervisor", pid=1, rss_bytes=supervisor * MB, shared_bytes=0),
        e.PartSample(role="template", pid=pid, rss_bytes=template * MB, shared_bytes=0),
    ]
    return [type(command).__name__ for command in watch.look(parts, LIMITS, True, now)]


def test_a_supervisor_above_its_limit_cleans_up_and_says_so_at_a_slow_pace() -> None:
    watch = OwnWatch()
    assert look(watch, 99, 50, 0) == []
    assert look(watch, 101, 50, 1) == ["TrimCache", "GiveBackMemory", "Note"]
    assert look(watch, 101, 50, 2) == [], "it must show first"
    assert look(watch, 101, 50, 32) == ["TrimCache", "GiveBackMemory"]
    assert look(watch, 99, 50, 40) == []
    heard = [look(watch, 101, 50, 32 + 31 * times) for times in range(1, 12)]
    assert [step for step, names in enumerate(heard, start=1) if "Note" in names] == [9], "after 300 s"


def test_a_template_that_grew_is_renewed_once() -> None:
    watch = OwnWatch()
    assert look(watch, 50, 60, 0) == []
    assert look(watch, 50, 81, 1) == ["Note", "RenewTemplate"]
    assert look(watch, 50, 81, 2) == [], "it is on its way"
    assert look(watch, 50, 60, 3, pid=3) == []
    assert look(watch, 50, 82, 4, pid=3) == ["Note", "RenewTemplate"]


def test_a_template_born_above_its_limit_is_not_renewed_for_ever() -> None:
    watch = OwnWatch()
    assert look(watch, 50, 90, 0) == ["Note"]
    assert look(watch, 50, 95, 1) == []
    assert look(watch, 50, 90, 2, pid=3) == ["Note"]


def test_the_pool_watches_its_own() -> None:
    story = Story(watch=LIMITS).start()
    for rss in (60, 90):
        story.feed(
            e.Sampled(
                workers=[],
                own_bytes=100 * MB,
                cgroup_used_bytes=None,
                budget_bytes=story.budget_bytes,
                available_bytes=10_000 * MB,
                parts=[e.PartSample(role="template", pid=2, rss_bytes=rss * MB, shared_bytes=0)],
            )
        )
    assert story.of(c.RenewTemplate) == [c.RenewTemplate()]
    assert "the template holds 90 MB, its limit is 80 MB" in story.notes("own_limit")[0].message
