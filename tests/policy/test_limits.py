"""Limits of one worker: strictly ordered whatever the budget, and within the budget by design."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.limits import Widenings, room_bytes, worker_limits, workers_that_fit
from supervisor.policy.sizes import MB
from supervisor.policy.watch_settings import WatchSettings

SETTINGS = WatchSettings()
sizes = st.integers(min_value=0, max_value=1 << 42)


def test_a_share_of_a_hundred_megabytes_gives_the_plain_defaults() -> None:
    # 4 workers, 40 MB private baseline of 60 MB RSS, 60 MB ours: 4 x 140 + 60 + 30 kept free = 650 MB.
    limits = worker_limits(60 * MB, 650 * MB, 60 * MB, [40 * MB] * 4, 4, SETTINGS)
    assert (limits.soft_bytes, limits.recycle_bytes, limits.hard_bytes) == (110 * MB, 130 * MB, 160 * MB)
    assert limits.fits
    assert limits.item_bytes == 70 * MB


def test_a_large_budget_scales_the_allowances() -> None:
    limits = worker_limits(60 * MB, 8_000 * MB, 0, [0] * 4, 4, WatchSettings(keep_free_bytes=0))
    assert (limits.soft_bytes, limits.recycle_bytes, limits.hard_bytes) == (1_060 * MB, 1_460 * MB, 2_060 * MB)


def test_a_middling_budget_keeps_the_defaults_as_long_as_they_fit() -> None:
    limits = worker_limits(0, 80 * MB, 0, [0], 1, WatchSettings(keep_free_bytes=0))
    assert (limits.soft_bytes, limits.recycle_bytes, limits.hard_bytes) == (50 * MB, 70 * MB, 80 * MB)


def test_a_budget_below_the_baselines_does_not_fit_and_says_so() -> None:
    limits = worker_limits(60 * MB, 100 * MB, 50 * MB, [40 * MB] * 4, 4, SETTINGS)
    assert not limits.fits
    assert limits.hard_bytes == 60 * MB + SETTINGS.smallest_allowance_bytes


@given(
    baseline=sizes, budget=sizes, own=sizes, baselines=st.lists(sizes, max_size=40), workers=st.integers(1, 64),
    reserved=sizes, widening=st.floats(1.0, 100.0), cap=st.none() | st.integers(1, 1 << 40),
)  # fmt: skip
def test_limits_are_strictly_ordered_whatever_is_asked(
    baseline: int, budget: int, own: int, baselines: list[int], workers: int,
    reserved: int, widening: float, cap: int | None,
) -> None:  # fmt: skip
    settings = WatchSettings(max_worker_rss_bytes=cap)
    limits = worker_limits(baseline, budget, own, baselines, workers, settings, reserved, widening)
    assert limits.baseline_bytes < limits.soft_bytes < limits.recycle_bytes < limits.hard_bytes
    if limits.fits and cap is not None:
        assert limits.hard_bytes <= cap


@given(
    budget=sizes, own=sizes, baselines=st.lists(sizes, min_size=1, max_size=40), shared=sizes, widening=st.floats(1, 9)
)
def test_all_workers_at_their_hard_limits_are_within_the_budget(
    budget: int, own: int, baselines: list[int], shared: int, widening: float
) -> None:
    every = [
        worker_limits(private + shared, budget, own, baselines, len(baselines), SETTINGS, widening=widening)
        for private in baselines
    ]
    if all(limits.fits for limits in every):
        assert own + sum(limits.hard_bytes - shared for limits in every) <= budget
    else:
        assert room_bytes(budget, own, baselines, len(baselines), SETTINGS) < len(baselines) * 8 * MB


@given(budget=sizes, own=sizes, baselines=st.lists(sizes, min_size=1, max_size=40), reserved=sizes)
def test_a_reserved_item_fits_while_the_others_rest(budget: int, own: int, baselines: list[int], reserved: int) -> None:
    plain = worker_limits(baselines[0], budget, own, baselines, len(baselines), SETTINGS)
    alone = worker_limits(baselines[0], budget, own, baselines, len(baselines), SETTINGS, reserved)
    assert alone.hard_bytes >= plain.hard_bytes
    assert alone.recycle_bytes >= plain.recycle_bytes
    if alone.fits:
        assert own + sum(baselines[1:]) + alone.hard_bytes <= budget


def test_a_reservation_raises_all_three_limits() -> None:
    plain = worker_limits(60 * MB, 650 * MB, 60 * MB, [40 * MB] * 4, 4, SETTINGS)
    alone = worker_limits(60 * MB, 650 * MB, 60 * MB, [40 * MB] * 4, 4, SETTINGS, reserved_bytes=250 * MB)
    assert plain.recycle_bytes == 130 * MB
    assert alone.hard_bytes == 372.5 * MB
    assert 60 * MB + 250 * MB < alone.soft_bytes < alone.recycle_bytes


def test_workers_still_starting_are_taken_for_average_ones() -> None:
    assert room_bytes(1_000 * MB, 0, [100 * MB, 200 * MB], 4, WatchSettings(keep_free_bytes=0)) == 400 * MB


def test_a_total_limit_is_a_smaller_budget() -> None:
    settings = WatchSettings(max_total_bytes=500 * MB, keep_free_bytes=0)
    assert room_bytes(1_000 * MB, 100 * MB, [], 4, settings) == 400 * MB


def test_as_many_workers_as_can_each_take_an_item() -> None:
    assert workers_that_fit(40 * MB, 650 * MB, 60 * MB, 100 * MB, SETTINGS) == 4
    assert workers_that_fit(40 * MB, 649 * MB, 60 * MB, 100 * MB, SETTINGS) == 3
    assert workers_that_fit(40 * MB, 50 * MB, 60 * MB, 100 * MB, SETTINGS) == 0
    for most, fit in ((1, 1), (3, 3), (4, 4), (9, 4)):
        assert workers_that_fit(40 * MB, 650 * MB, 60 * MB, 100 * MB, SETTINGS, most) == fit


@given(baseline=st.integers(0, 1 << 30), budget=st.integers(0, 1 << 36), item=st.integers(0, 1 << 30))
def test_workers_that_fit_have_limits_that_fit(baseline: int, budget: int, item: int) -> None:
    workers = workers_that_fit(baseline, budget, 0, item, SETTINGS)
    if workers:
        assert worker_limits(baseline, budget, 0, [baseline] * workers, workers, SETTINGS).fits


def test_a_widened_allowance_moves_soft_and_recycle_up_to_the_hard_limit() -> None:
    widenings = Widenings(SETTINGS)
    seen = []
    for _ in range(4):
        limits = worker_limits(
            60 * MB, 650 * MB, 60 * MB, [40 * MB] * 4, 4, SETTINGS, widening=widenings.of(2, "thumbs")
        )
        seen.append(limits.recycle_bytes)
        widenings.widen(2, "thumbs")
    assert seen == [130 * MB, 155 * MB, 155 * MB, 155 * MB]
    assert widenings.of(1, "thumbs") == 1.0


def test_widenings_are_remembered_for_a_bounded_number() -> None:
    widenings = Widenings(SETTINGS)
    for slot in range(3_000):
        widenings.widen(slot, "thumbs")
    assert len(widenings.factors) == 1024
    assert widenings.of(2_999, "thumbs") == 1.5
    for _ in range(100):
        widenings.widen(2_999, "thumbs")
    assert widenings.of(2_999, "thumbs") == 100.0
