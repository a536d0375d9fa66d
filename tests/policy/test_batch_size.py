"""The batch size grows when calm, halves on pressure, and tapers at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.batch_size import BatchSize


def full_lease(size: BatchSize, seconds_an_item: float = 0.001) -> int:
    return size.clean(size.size, size.size * seconds_an_item)


def test_it_doubles_until_the_first_pressure_and_then_grows_by_one() -> None:
    size = BatchSize()
    assert [full_lease(size) for _ in range(5)] == [2, 4, 8, 16, 32]
    assert size.pressure(10.0, "worker 0 reached its soft limit")
    assert size.size == 16
    assert [full_lease(size) for _ in range(3)] == [17, 18, 19]
    assert size.sizes == [1, 2, 4, 8, 16, 32, 16, 17, 18, 19]
    assert size.history[6].reason == "worker 0 reached its soft limit"


def test_a_lease_is_about_half_a_second_of_work() -> None:
    size = BatchSize()
    for _ in range(12):
        full_lease(size, seconds_an_item=0.02)
    assert size.size == 25


def test_slower_items_make_shorter_leases() -> None:
    size = BatchSize()
    for _ in range(12):
        full_lease(size, seconds_an_item=0.01)
    assert size.size == 50
    for _ in range(30):
        full_lease(size, seconds_an_item=0.1)
    assert size.size == 5
    assert size.shrinks == 0, "that was no pressure"


def test_it_has_a_largest_size() -> None:
    size = BatchSize(max_size=100)
    for _ in range(20):
        full_lease(size, seconds_an_item=0.0)
    assert size.size == 100


def test_a_short_lease_proves_nothing() -> None:
    size = BatchSize()
    for _ in range(4):
        full_lease(size)
    assert size.clean(3, 0.003) == 16
    assert size.clean(0, 0.0) == 16


def test_pressure_in_close_succession_is_one_pressure() -> None:
    size = BatchSize()
    for _ in range(5):
        full_lease(size)
    assert [size.pressure(10.0 + late, "soft") for late in (0.0, 0.01, 0.49, 0.5)] == [True, False, False, True]
    assert (size.size, size.shrinks) == (8, 2)


def test_critical_is_one_at_once_and_counts_once() -> None:
    size = BatchSize()
    for _ in range(5):
        full_lease(size)
    size.pressure(10.0, "soft")
    assert size.critical(10.01, "level critical")
    assert not size.critical(10.02, "level critical")
    assert not size.pressure(20.0, "soft")
    assert (size.size, size.shrinks) == (1, 2)


def test_the_workers_finish_together() -> None:
    size = BatchSize(size=64)
    assert [size.taper(pending, 4) for pending in (10_000, 512, 511, 100, 9, 8, 1, 0)] == [64, 64, 64, 13, 2, 1, 1, 1]


@given(st.lists(st.sampled_from(["clean", "slow", "pressure", "critical", "short"]), max_size=200))
def test_it_stays_within_its_bounds_and_its_history_is_bounded(events: list[str]) -> None:
    size = BatchSize(max_size=64)
    for now, event in enumerate(events):
        match event:
            case "clean":
                full_lease(size)
            case "slow":
                full_lease(size, 10.0)
            case "pressure":
                size.pressure(float(now), "pressure")
            case "critical":
                size.critical(float(now), "critical")
            case "short":
                size.clean(1, 0.01)
        assert 1 <= size.size <= 64
        assert len(size.history) <= 20
        assert size.sizes[-1] == size.size


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="max_size is 0"):
        BatchSize(max_size=0)
    with pytest.raises(ValueError, match="target_lease_seconds is 0"):
        BatchSize(target_lease_seconds=0.0)
