"""Levels of the whole over time: entered at once, left late, never stuck."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.levels import Level, Levels, level_words
from supervisor.policy.sizes import MB
from supervisor.policy.watch_settings import WatchSettings

BUDGET = 1_000 * MB
PLENTY = 10_000 * MB


def levels() -> Levels:
    return Levels(WatchSettings())


def at(state: Levels, percent: float, now: float) -> Level:
    return state.update(int(percent * BUDGET / 100), BUDGET, PLENTY, now)


def test_each_level_is_entered_at_its_share_at_once() -> None:
    entered = [at(levels(), percent, 0.0) for percent in (0, 74, 75, 80, 90, 95, 98, 140)]
    assert entered == [
        Level.NORMAL, Level.NORMAL, Level.ELEVATED, Level.WARNING, Level.CRITICAL, Level.EMERGENCY, Level.PROTECTION,
        Level.PROTECTION,
    ]  # fmt: skip


def test_recovery_takes_the_gap_and_the_hold() -> None:
    state = levels()
    assert at(state, 91, 0.0) == Level.CRITICAL
    assert at(state, 88, 1.0) == Level.CRITICAL, "between the marks"
    assert at(state, 86, 2.0) == Level.CRITICAL, "below the lower mark, but not for long enough"
    assert at(state, 86, 3.9) == Level.CRITICAL
    assert at(state, 86, 4.0) == Level.WARNING
    assert at(state, 20, 4.1) == Level.WARNING
    assert at(state, 20, 6.1) == Level.NORMAL


def test_what_takes_something_away_does_not_wait_for_the_hold() -> None:
    state = levels()
    told = [(at(state, percent, 0.1 * step), state.acute) for step, percent in enumerate((96, 94, 91, 20))]
    assert told == [
        (Level.EMERGENCY, Level.EMERGENCY),
        (Level.EMERGENCY, Level.EMERGENCY),
        (Level.EMERGENCY, Level.CRITICAL),
        (Level.EMERGENCY, Level.NORMAL),
    ]


def test_a_dip_does_not_count_as_calm() -> None:
    state = levels()
    at(state, 91, 0.0)
    at(state, 80, 1.0)
    at(state, 88, 2.0)
    assert at(state, 80, 3.0) == Level.CRITICAL
    assert at(state, 80, 4.9) == Level.CRITICAL
    assert at(state, 80, 5.0) == Level.WARNING


def test_a_level_that_only_its_delay_holds_says_so_with_figures() -> None:
    state = levels()
    at(state, 85, 0.0)
    assert state.held(0.0) is None, "85 % is called for"

    at(state, 78, 1.0)
    between = state.held(4.0)
    assert between is not None
    assert (between.now, between.pressure, between.eases_below) == ("elevated", 0.78, 0.77)
    assert (between.calm_seconds, between.between_seconds, between.held_seconds) == (0.0, 3.0, 3.0)
    assert level_words("warning", between) == "warning (held: 78% now, eases below 77% for 2 s)"

    at(state, 77.3, 4.5)
    assert "held: 77.3% now, eases below 77%" in level_words("warning", state.held(4.5))

    at(state, 71, 5.0)
    at(state, 71, 5.5)
    calm = state.held(5.5)
    assert calm is not None and (calm.now, calm.calm_seconds, calm.held_seconds) == ("normal", 0.5, 4.5)
    assert level_words("warning", calm) == "warning (held: 71% now, eases in 1.5 s)"

    assert at(state, 71, 7.1) == Level.NORMAL
    assert state.held(7.1) is None and level_words("normal", None) == "normal"


def test_lingering_between_the_marks_does_not_keep_a_level_for_ever() -> None:
    state = levels()
    at(state, 91, 0.0)
    assert [at(state, 88, float(now)) for now in range(1, 11)] == [Level.CRITICAL] * 10
    assert at(state, 88, 11.0) == Level.WARNING


def test_time_spent_at_a_level_is_not_time_spent_between_its_marks() -> None:
    state = levels()
    for now in range(20):
        at(state, 91, float(now))
    assert at(state, 88, 20.0) == Level.CRITICAL
    assert at(state, 88, 29.0) == Level.CRITICAL
    assert at(state, 88, 30.0) == Level.WARNING


def test_a_limit_lowered_while_running_raises_the_level_at_once() -> None:
    state = levels()
    assert state.update(500 * MB, BUDGET, PLENTY, 0.0) == Level.NORMAL
    assert state.update(500 * MB, 520 * MB, PLENTY, 0.1) == Level.EMERGENCY
    assert state.pressure > 0.96
    assert state.update(500 * MB, 0, PLENTY, 0.2) == Level.PROTECTION


def test_little_free_memory_on_the_machine_is_critical_whatever_the_budget_says() -> None:
    state = levels()
    assert state.update(10 * MB, BUDGET, 99 * MB, 0.0) == Level.CRITICAL
    assert state.update(10 * MB, BUDGET, 49 * MB, 0.1) == Level.EMERGENCY
    assert state.update(10 * MB, BUDGET, PLENTY, 0.2) == Level.EMERGENCY
    assert state.update(10 * MB, BUDGET, PLENTY, 2.2) == Level.NORMAL


def test_swapping_in_is_a_warning() -> None:
    state = levels()
    assert state.update(10 * MB, BUDGET, PLENTY, 0.0, swap_in_bytes_per_second=5 * MB) == Level.WARNING
    assert "swapping in" in state.reason


def test_the_reason_carries_the_figures() -> None:
    state = levels()
    state.update(512 << 20, 1 << 30, 2 << 30, 0.0)
    assert state.reason == "512 MB of 1.0 GB used (50%), 2.0 GB available on the machine"


@given(st.lists(st.tuples(st.integers(0, 2_000), st.floats(0.0, 5.0)), max_size=60))
def test_never_lower_than_what_is_measured_and_always_normal_in_the_end(steps: list[tuple[int, float]]) -> None:
    state = levels()
    now = 0.0
    for permille, passed in steps:
        now += passed
        assert at(state, permille / 10, now) >= at(levels(), permille / 10, now)
    for second in range(1, 20):
        last = at(state, 10, now + second)
    assert last == Level.NORMAL
