"""The settings of the memory watch know how they relate."""

from typing import Any

import pytest

from supervisor.policy.watch_settings import WatchSettings


def test_the_defaults_are_sound() -> None:
    assert WatchSettings().check() == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"warning_share": 0.95}, "warning_share is 0.95, must be below critical_share"),
        ({"protection_share": 1.2}, "protection_share is 1.2, must be above 0 and at most 1"),
        ({"level_gap_share": 0.0}, "level_gap_share"),
        ({"level_hold_seconds": 11.0}, "level_hold_seconds is 11.0"),
        ({"interval_min_seconds": 0.2}, "interval_min_seconds"),
        ({"interval_min_seconds": 0.0}, "interval_min_seconds"),
        ({"stale_after_seconds": 1.0}, "stale_after_seconds is 1.0, must be at least twice"),
        ({"growth_floor_bytes_per_second": 0.0}, "growth_floor_bytes_per_second"),
        ({"allowance_warning_bytes": 80_000_000}, "allowance_warning_bytes is 80000000"),
        ({"keep_free_bytes": -1}, "keep_free_bytes is -1"),
        ({"smallest_allowance_bytes": 5}, "smallest_allowance_bytes is 5"),
        ({"max_worker_heap_bytes": 0}, "max_worker_heap_bytes is 0"),
        ({"min_items_between_recycles": 0}, "min_items_between_recycles is 0"),
        ({"widening_factor": 1.0}, "widening_factor is 1.0"),
    ],
)
def test_a_fault_is_named_with_its_figures(changed: dict[str, Any], named: str) -> None:
    faults = WatchSettings(**changed).check()
    assert len(faults) == 1
    assert named in faults[0]


def test_all_faults_are_told_at_once() -> None:
    assert len(WatchSettings(keep_free_bytes=-1, widening_factor=0.5, min_items_between_recycles=0).check()) == 3
