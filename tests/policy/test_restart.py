"""Restart intensity: at once as a rule, later and later for a worker that cannot start."""

from random import Random

from supervisor.policy.restart import Restarts, RestartSettings, restart_delay


def test_a_worker_that_worked_is_replaced_at_once_always() -> None:
    restarts = Restarts()
    assert [restarts.died(now / 10, 1, Random(1)) for now in range(50)] == [0.0] * 50
    assert not restarts.backing_off


def test_the_third_early_death_in_a_minute_waits_then_twice_as_long() -> None:
    restarts, random, now = Restarts(), Random(7), 100.0
    waits = []
    for _ in range(10):
        wait = restarts.died(now, 0, random)
        waits.append(wait)
        now += wait + 0.05
    assert waits[:2] == [0.0, 0.0]
    for wait, whole in zip(waits[2:], [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert whole / 2 <= wait <= whole
    assert len(restarts.early_deaths) <= 3


def test_a_settled_item_clears_the_record() -> None:
    restarts, random = Restarts(), Random(7)
    for now in (0.0, 0.1, 0.2):
        last = restarts.died(now, 0, random)
    assert last > 0
    restarts.settled()
    assert restarts.died(5.0, 0, random) == 0.0


def test_early_deaths_far_apart_do_not_add_up() -> None:
    restarts, random = Restarts(), Random(7)
    assert [restarts.died(now * 61.0, 0, random) for now in range(10)] == [0.0] * 10


def test_a_worker_that_lived_idle_for_a_period_is_not_held_responsible_for_those_before_it() -> None:
    restarts, random = Restarts(), Random(7)
    for now in (0.0, 0.1, 0.2):
        wait = restarts.died(now, 0, random)
    assert restarts.died(0.2 + wait + 59.9, 0, random) > 0
    assert restarts.died(200.0, 0, random) == 0.0


def test_jitter_sets_slots_apart() -> None:
    settings = RestartSettings()
    assert len({restart_delay(4, settings, Random(seed)) for seed in range(20)}) == 20
    assert restart_delay(10_000, settings, Random(1)) <= 60.0


def test_settings_name_their_faults() -> None:
    assert RestartSettings().check() == []
    assert len(RestartSettings(burst=0, period_seconds=0.0, base_seconds=90.0).check()) == 3
