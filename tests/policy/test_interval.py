"""The closer to the edge, the more often we look."""

import pytest

from supervisor.policy.interval import Growth, interval_seconds
from supervisor.policy.sizes import GB, MB
from supervisor.policy.watch_settings import WatchSettings

SETTINGS = WatchSettings()


@pytest.mark.parametrize(
    ("headroom", "growth", "idle", "seconds"),
    [
        (10 * GB, 0.0, False, 0.100),
        (GB // 10, 0.0, False, 0.050),
        (GB // 10, 2.0 * GB, False, 0.025),
        (5 * MB, 0.0, False, 0.010),
        (-50 * MB, 0.0, False, 0.010),
        (5 * MB, 0.0, True, 1.0),
    ],
)
def test_half_the_time_in_which_the_headroom_could_fill(
    headroom: int, growth: float, idle: bool, seconds: float
) -> None:
    assert interval_seconds(headroom, growth, idle, SETTINGS) == pytest.approx(seconds)


def test_growth_is_that_of_the_last_two_samples_and_fades() -> None:
    growth = Growth()
    assert growth.note(100 * MB, 10.0) == 0.0
    assert growth.note(300 * MB, 10.1) == pytest.approx(2_000 * MB)
    assert growth.note(300 * MB, 11.1) == pytest.approx(1_000 * MB)
    assert growth.note(0, 12.1) == pytest.approx(500 * MB)


def test_samples_of_one_instant_tell_nothing() -> None:
    growth = Growth()
    growth.note(100 * MB, 10.0)
    assert growth.note(900 * MB, 10.0) == 0.0
    assert growth.note(900 * MB, 9.0) == 0.0


def test_a_new_worker_has_no_past() -> None:
    growth = Growth()
    growth.note(100 * MB, 10.0)
    growth.note(900 * MB, 10.1)
    growth.forget()
    assert growth.note(10 * MB, 10.2) == 0.0


def test_a_softer_limit_is_not_passed_unseen_for_longer_than_a_few_looks() -> None:
    far = interval_seconds(400 * MB, 0.0, False, SETTINGS)
    assert interval_seconds(400 * MB, 0.0, False, SETTINGS, 300 * MB) == far, "far from it nothing changes"
    assert interval_seconds(400 * MB, 0.0, False, SETTINGS, GB // 25) == pytest.approx(0.040)
    assert interval_seconds(400 * MB, 0.0, False, SETTINGS, GB // 1000) == pytest.approx(0.015)
    assert interval_seconds(5 * MB, 0.0, False, SETTINGS, 40 * MB) == SETTINGS.interval_min_seconds, "the edge first"
    assert interval_seconds(400 * MB, 0.0, True, SETTINGS, 1 * MB) == SETTINGS.interval_idle_seconds


@pytest.mark.parametrize(("headroom", "seconds"), [(1 * GB, 1.0), (3 * GB, 1.5), (4 * GB, 2.0), (90 * GB, 2.0)])
def test_at_rest_the_pace_follows_what_is_free(headroom: int, seconds: float) -> None:
    assert interval_seconds(headroom, 0.0, True, SETTINGS) == pytest.approx(seconds)


def test_the_pace_at_rest_keeps_samples_fresh_and_never_hurries_beyond_the_idle_one() -> None:
    settings = WatchSettings(interval_rest_seconds=60.0)
    assert interval_seconds(90 * GB, 0.0, True, settings) == pytest.approx(2.0), "a sample older is no fact"
    settings = WatchSettings(interval_idle_seconds=3.0, stale_after_seconds=6.0)
    assert interval_seconds(90 * GB, 0.0, True, settings) == 3.0
