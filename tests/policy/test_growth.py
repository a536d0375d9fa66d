"""Steady growth is told from peaks, from a saw-tooth and from the noise of allocators."""

from random import Random

from supervisor.policy.growth import judge_growth

BASE = 50_000_000


def test_steady_growth_is_a_leak_with_its_size() -> None:
    found = judge_growth([(images, BASE + images * 100_000) for images in range(100, 1100, 100)])
    assert found.leaks
    assert found.bytes_an_image == 100_000
    assert found.confidence > 0.99


def test_noise_a_saw_tooth_and_one_peak_are_none() -> None:
    random = Random(1)
    noise = [(images, BASE + random.randrange(3_000_000)) for images in range(100, 2100, 100)]
    tooth = [(images, BASE + images % 400 * 20_000) for images in range(100, 2100, 100)]
    peak = [(images, BASE + (80_000_000 if images == 1000 else 0)) for images in range(100, 2100, 100)]
    assert not any(judge_growth(samples).leaks for samples in (noise, tooth, peak))


def test_growth_not_worth_mentioning_and_too_few_samples_are_none() -> None:
    small = judge_growth([(images, BASE + images * 100) for images in range(100, 1100, 100)])
    assert (small.leaks, small.confidence > 0.99) == (False, True)
    few = judge_growth([(100, BASE), (200, 2 * BASE), (300, 3 * BASE)])
    assert not few.leaks
    assert "cannot be judged from" in few.message
