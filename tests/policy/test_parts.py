"""Parts beside the pool: started, replaced, held back in an emergency, started again when it is over."""

import msgspec
import pytest

from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.part import PartPlan
from supervisor.policy.sizes import MB
from tests.policy.story import Story

PARTS = (
    PartPlan(name="gateway", limit_bytes=100 * MB, stop_seconds=5.0),
    PartPlan(name="meter", essential=True),
)


def story() -> Story:
    """Two workers and two parts."""
    return Story(workers=2, parts=PARTS)


def begun() -> Story:
    """Everything runs."""
    told = story()
    heard = told.feed(e.Tick())
    assert [command for command in heard if isinstance(command, c.StartPart)] == [
        c.StartPart(name="gateway", incarnation=1),
        c.StartPart(name="meter", incarnation=1),
    ]
    for pid, name in enumerate(("gateway", "meter"), 500):
        told.feed(e.PartStarted(name=name, incarnation=1, pid=pid))
    assert states(told) == {"gateway": "running", "meter": "running"}
    return told


def states(told: Story) -> dict[str, str]:
    return {name: part.state for name, part in told.pool.state.parts.items()}


def look(told: Story, used: int, gateway: int = 20, pid: int = 500) -> list[c.Command]:
    """A look at the whole, `used` MB of the budget of 1,000."""
    return told.feed(
        e.Sampled(
            workers=[],
            own_bytes=used * MB,
            cgroup_used_bytes=None,
            budget_bytes=1_000 * MB,
            available_bytes=10_000 * MB,
            parts=[
                e.PartSample(role="gateway", pid=pid, rss_bytes=gateway * MB, shared_bytes=0),
                e.PartSample(role="meter", pid=501, rss_bytes=30 * MB, shared_bytes=0),
            ],
        )
    )


def of(heard: list[c.Command], kind: type[c.Command]) -> list[c.Command]:
    return [command for command in heard if isinstance(command, kind)]


def test_an_emergency_holds_back_what_is_not_essential_until_it_is_over() -> None:
    told = begun()
    assert of(look(told, 900), c.StopPart) == [], "critical is no emergency"
    heard = look(told, 960)
    assert of(heard, c.StopPart) == [c.StopPart(name="gateway", incarnation=1, kill=False)]
    assert [note.message for note in told.notes("part_held")] == [
        "gateway is stopped until the emergency is over: memory level emergency; it held 20 MB"
    ]
    told.feed(e.PartExited(name="gateway", incarnation=1, exit_code=0))
    assert states(told) == {"gateway": "held", "meter": "running"}
    for _ in range(40):
        told.clock.step(0.1)
        assert of(look(told, 920), c.StartPart) == [], "critical still"
    for _ in range(40):
        told.clock.step(0.1)
        look(told, 500)
    assert states(told) == {"gateway": "starting", "meter": "running"}
    assert told.pool.state.parts["gateway"].incarnation == 2
    assert told.pool.state.parts["gateway"].restarts == 0, "an end that was asked for is no death"


def test_a_part_that_does_not_heed_term_is_killed() -> None:
    told = begun()
    look(told, 960)
    told.clock.step(4.9)
    assert of(told.feed(e.Tick()), c.StopPart) == []
    told.clock.step(0.1)
    assert of(told.feed(e.Tick()), c.StopPart) == [c.StopPart(name="gateway", incarnation=1, kill=True)]


def test_one_that_dies_starts_again_at_once_and_later_when_it_goes_on_dying() -> None:
    told = begun()
    delays = []
    for incarnation in range(1, 6):
        told.feed(e.PartExited(name="gateway", incarnation=incarnation, exit_code=1))
        part = told.pool.state.parts["gateway"]
        delays.append(part.start_at - told.clock.now)
        told.clock.step(delays[-1])
        told.feed(e.Tick())
        told.feed(e.PartStarted(name="gateway", incarnation=incarnation + 1, pid=600 + incarnation))
    assert delays[:2] == [0.0, 0.0]
    assert 0.5 <= delays[2] <= 1.0
    assert 1.0 <= delays[3] <= 2.0
    assert 2.0 <= delays[4] <= 4.0
    assert told.pool.state.parts["gateway"].restarts == 5
    told.clock.step(100.0)
    told.feed(e.PartExited(name="gateway", incarnation=6, exit_code=1))
    assert told.pool.state.parts["gateway"].start_at == told.clock.now, "it lived long enough to have worked"


def test_one_that_cannot_be_started_is_told_with_the_reason() -> None:
    told = story()
    told.feed(e.Tick())
    told.heard = told.feed(e.PartExited(name="gateway", incarnation=1, exit_code=None, reason="no such program"))
    assert [note.message for note in told.notes("part_died")] == [
        "gateway ended (no such program); it starts again in 0.0 s"
    ]


def test_one_above_its_limit_is_replaced_with_the_back_off_of_a_death() -> None:
    told = begun()
    heard = look(told, 300, gateway=100)
    assert of(heard, c.StopPart) == [c.StopPart(name="gateway", incarnation=1, kill=False)]
    assert of(look(told, 300, gateway=100), c.StopPart) == [], "once"
    assert told.pool.state.parts["gateway"].restarts == 0
    told.feed(e.PartExited(name="gateway", incarnation=1, exit_code=0))
    assert told.pool.state.parts["gateway"].restarts == 1
    assert states(told)["gateway"] == "starting"


def test_a_part_held_back_before_it_exists_is_stopped_when_it_does() -> None:
    told = story()
    told.feed(e.Tick())
    assert of(look(told, 960), c.StopPart) == []
    heard = told.feed(e.PartStarted(name="gateway", incarnation=1, pid=9))
    assert of(heard, c.StopPart) == [c.StopPart(name="gateway", incarnation=1, kill=False)]


def test_a_drain_stops_every_part_and_waits_for_the_last() -> None:
    told = begun()
    for slot in range(2):
        told.ready(slot)
    told.heard = told.feed(e.StopAsked(now=False, reason="SIGTERM"))
    assert [command.name for command in told.of(c.StopPart)] == ["gateway", "meter"]
    for slot in range(2):
        told.exit(slot, 0)
    told.feed(e.PartExited(name="gateway", incarnation=1, exit_code=0))
    assert told.pool.running, "the meter is still there"
    told.feed(e.PartExited(name="meter", incarnation=1, exit_code=0))
    assert not told.pool.running


@pytest.mark.parametrize("incarnation", [0, 2])
def test_news_of_another_incarnation_change_nothing(incarnation: int) -> None:
    told = begun()
    before = msgspec.structs.asdict(told.pool.state.parts["gateway"])
    told.feed(e.PartExited(name="gateway", incarnation=incarnation, exit_code=1))
    look(told, 300, gateway=100, pid=500 + 1 + incarnation)
    assert msgspec.structs.asdict(told.pool.state.parts["gateway"]) == before
