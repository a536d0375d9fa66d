"""Emergency protection: three verified attempts, then an orderly stop; a smaller start; cleared by calm."""

from typing import Any

import pytest

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.protection_note import fewer_workers, in_a_row
from supervisor.policy.state import PoolState
from tests.policy.story import Story, names
from tests.policy.test_cleanup import REST, answer, later, look, story, tiers


def begin_and_fail(told: Story, used: int = 990) -> list[str]:
    """Looks until the pool stops or 20 s are over; what was noted by protection."""
    said: list[str] = []
    for _ in range(200):
        told.clock.step(0.1)
        heard = look(told, used)
        said += [each.message for each in heard if isinstance(each, c.Note) and each.kind == "protection"]
        for each in heard:
            if isinstance(each, c.CleanUp):
                answer(told, each.number)
        if told.pool.state.draining:
            break
    return said


def test_three_attempts_then_drain_with_its_own_exit_code_and_a_note() -> None:
    told = story()
    told.submit("b", names(2))
    said = begin_and_fail(told)
    assert [line.partition(":")[0] for line in said] == [
        "emergency protection, attempt 1 of 3",
        "emergency protection, attempt 2 of 3",
        "emergency protection, attempt 3 of 3",
        "stopped by emergency protection",
    ]
    assert "raise --memory or lower --workers" in said[3]
    state = told.pool.state
    assert state.draining
    assert told.of(c.KeepProtection) == [c.KeepProtection(stops=[state.epoch(told.clock.now)])]
    for slot in range(2):
        if told.pool.state.slots[slot].worker is not None:
            told.exit(slot, 0)
    assert told.of(c.StopLoop) == [c.StopLoop(exit_code=75)]
    assert set(told.on_disk("b").values()) == {"pending"}, "nothing accepted is lost"


def test_an_attempt_that_helps_ends_it_and_is_forgotten_when_it_is_calm() -> None:
    told = story()
    assert tiers(look(told, 990)) == ["emergency"]
    answer(told, 1)
    assert told.pool.state.protection.attempts == 1
    assert later(told, 5, REST) == []
    assert told.pool.state.protection.attempts == 0
    assert not told.pool.state.draining
    assert [done.recovered for done in told.pool.state.cleanups.history] == [True]


def test_turned_off_it_only_cleans() -> None:
    told = story(protection=False)
    assert begin_and_fail(told) == []
    assert not told.pool.state.draining
    told.ask(m.EmergencyProtection(enabled=True))
    assert told.pool.state.protection.attempts == 1
    assert len(begin_and_fail(told)) == 3, "two more, and the stop"
    assert told.pool.state.draining


@pytest.mark.parametrize("used", [180, 240])
def test_one_worker_at_rest_is_not_stopped_because_the_same_would_happen_again(used: int) -> None:
    """Nor one that holds more: the next would begin with what is too much already."""
    told = Story(workers=1)
    told.feed(e.Tick())
    told.ready(0)
    said = begin_and_fail(told, used=180)
    assert said == [], "180 of 1,000 MB"
    for _ in range(100):
        told.clock.step(0.1)
        heard = look(told, used, budget=150)
        said += [each.message for each in heard if isinstance(each, c.Note) and each.kind == "protection"]
        for each in heard:
            if isinstance(each, c.CleanUp):
                answer(told, each.number)
    assert len(said) == 4
    assert "one worker cannot be fewer, so work goes on slowly" in said[3]
    assert not told.pool.state.draining


def test_where_workers_at_rest_are_all_there_is_one_is_let_go_instead_of_stopping() -> None:
    """The next start would begin with as many, and come to the same."""
    told = story()
    said: list[str] = []
    for _ in range(100):
        told.clock.step(0.1)
        heard = look(told, REST, budget=REST)
        said += [each.message for each in heard if isinstance(each, c.Note) and each.kind == "protection"]
        for each in heard:
            if isinstance(each, c.CleanUp):
                answer(told, each.number)
        if told.pool.state.places == 1:
            break
    assert len(said) == 4 and "one worker fewer serves" in said[3] and "lower --workers" in said[3]
    state = told.pool.state
    assert not state.draining and state.stop_code != 75
    [gone] = [slot for slot in state.slots if slot.crowded]
    assert gone.worker is not None and gone.worker.state == "STOPPING"
    assert begin_and_fail(told, used=REST) == [], "nothing more while it leaves, and with room again"
    told.exit(gone.index, 0)
    look(told, REST // 2, budget=REST)
    later(told, 20, REST // 2)
    assert state.places == 1, "what was an emergency is not tried again at once"


def test_reset_forgets_attempts_cooldowns_and_stops() -> None:
    told = story(protection_stops=(5.0, 6.0), workers_configured=4)
    look(told, 990)
    heard = told.ask(m.EmergencyReset())
    (reply,) = [each for each in heard if isinstance(each, c.Reply)]
    assert isinstance(reply.answer, m.EmergencyStatus)
    protection = reply.answer.protection
    assert (protection.attempts, protection.stops, protection.workers, protection.workers_configured) == (0, [], 2, 4)
    assert [tier.rests_seconds for tier in reply.answer.tiers] == [0.0] * 4
    assert c.KeepProtection(stops=[]) in heard


@pytest.mark.parametrize(
    ("settings", "seconds", "cleared"),
    [({}, 3_601, True), ({}, 3_500, False), ({"protection_stops": ()}, 3_601, False)],
)
def test_an_hour_of_calm_clears_the_record(settings: dict[str, Any], seconds: float, cleared: bool) -> None:
    told = story(**({"protection_stops": (5.0,)} | settings))
    told.clock.step(seconds)
    assert (c.KeepProtection(stops=[]) in look(told, REST)) is cleared


def test_a_run_that_worked_and_ended_by_itself_clears_the_record() -> None:
    told = story(protection_stops=(5.0,))
    told.submit("b", names(2))
    for slot in range(2):
        if told.lease(slot):
            told.report(slot)
    told.feed(e.StopAsked(now=False, reason="SIGTERM"))
    for slot in range(2):
        told.exit(slot, 0)
    assert told.of(c.KeepProtection) == [c.KeepProtection(stops=[])]
    assert told.of(c.StopLoop) == [c.StopLoop(exit_code=0)]


def test_stops_count_while_each_follows_the_one_before_within_the_hour() -> None:
    assert in_a_row([], 10_000, 3_600) == []
    assert in_a_row([9_000], 10_000, 3_600) == [9_000]
    assert in_a_row([1_000, 4_000, 7_500], 10_000, 3_600) == [1_000, 4_000, 7_500]
    assert in_a_row([1_000, 7_500], 10_000, 3_600) == [7_500]
    assert in_a_row([7_500], 20_000, 3_600) == []
    assert in_a_row([10_500], 10_000, 3_600) == [], "a clock that went back"


def test_two_in_a_row_halve_the_workers_and_each_further_one_again() -> None:
    assert [fewer_workers(4, [0.0] * stops) for stops in range(6)] == [4, 4, 2, 1, 1, 1]
    assert fewer_workers(1, [0.0] * 3) == 1
    assert fewer_workers(3, [0.0] * 2) == 1


def test_protection_is_told_in_the_status() -> None:
    told = story()
    assert isinstance(told.pool.state, PoolState)
    look(told, 990)
    (reply,) = [each for each in told.ask(m.EmergencyStatusRequest()) if isinstance(each, c.Reply)]
    assert isinstance(reply.answer, m.EmergencyStatus)
    assert (reply.answer.level, reply.answer.protection.attempts) == ("protection", 1)
    assert [tier.runs for tier in reply.answer.tiers] == [0, 0, 0, 1]
