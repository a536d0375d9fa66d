"""Steady growth, and what only looks like it."""

from collections.abc import Callable
from math import exp
from random import Random

import pytest

from supervisor.policy.sizes import MB
from supervisor.policy.steadiness import NOT_KNOWN, SURE, steady


def curve(of: Callable[[int], float], count: int = 120) -> list[tuple[float, float]]:
    """So many points of a function."""
    return [(float(x), of(x)) for x in range(count)]


def saw(x: int) -> float:
    """Decoding: up to 40 MB within eight samples, then all of it freed."""
    return (x % 8) * 5 * MB


@pytest.mark.parametrize("seed", range(20))
def test_a_line_under_a_saw_tooth_is_found_with_its_slope(seed: int) -> None:
    noise = Random(seed)
    found = steady(curve(lambda x: 100 * MB + 0.2 * MB * x + saw(x) + noise.random() * 0.3 * MB))
    assert found.confidence >= SURE
    assert found.slope == pytest.approx(0.2 * MB, rel=0.25)


@pytest.mark.parametrize("seed", range(50))
def test_what_does_not_grow_is_not_believed(seed: int) -> None:
    noise = Random(seed)
    clean = {
        "level": curve(lambda _: 100 * MB + noise.random() * MB),
        "saw-tooth": curve(lambda x: 100 * MB + saw(x) + noise.random() * MB),
        "warm-up": curve(lambda x: 100 * MB + 50 * MB * (1 - exp(-x / 15)) + noise.random() * MB),
        "step": curve(lambda x: 100 * MB + (30 * MB if x > 55 else 0.0) + noise.random() * MB),
        "two steps": curve(lambda x: 100 * MB + (x // 50) * 20 * MB + noise.random() * MB),
        "large images": curve(lambda _: 100 * MB + (400 * MB if noise.random() < 0.2 else 0.0)),
    }
    sure = {name: steady(points) for name, points in clean.items() if steady(points).confidence >= SURE}
    assert not {name: found for name, found in sure.items() if found.grown > 1.5 * MB}


def test_shrinking_is_a_slope_below_zero() -> None:
    found = steady(curve(lambda x: 500 * MB - MB * x))
    assert found.slope == pytest.approx(-MB)
    assert found.grown < 0


def test_too_few_points_tell_nothing() -> None:
    assert steady([]) == NOT_KNOWN
    assert steady(curve(float, 20)) == NOT_KNOWN
    assert steady(curve(float, 21)).confidence >= SURE
