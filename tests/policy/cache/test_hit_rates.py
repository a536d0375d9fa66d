"""How much each policy finds again, on traces whose best answer is known; exact LRU beside it."""

import pytest

from supervisor.policy.cache.classic import LeastFrequentlyUsed, LeastRecentlyUsed
from supervisor.policy.cache.entry import Policy
from supervisor.policy.cache.windowed import Adaptive, CostAware
from tests.policy.cache.simulator import Exact, Simulator, hit_rate, key_of, loop, mixed, scan, zipf

OBJECTS, REQUESTS = 10_000, 100_000
CACHE = OBJECTS // 5


def rate(policy: Policy, trace: list[int], entries: int = CACHE) -> float:
    return hit_rate(Simulator(policy, 1 << 40, entries).request, trace)


@pytest.mark.parametrize("make", [Adaptive, CostAware])
def test_zipf_1_with_a_fifth_of_the_objects_hits_four_times_out_of_five(make: type[Adaptive]) -> None:
    trace = zipf(OBJECTS, 1.0, REQUESTS)
    assert rate(make(CACHE), trace) >= max(0.80, hit_rate(Exact(CACHE).request, trace) + 0.02)


@pytest.mark.parametrize("exponent", [0.8, 1.2])
def test_other_zipf_loads_are_served_better_than_by_lru(exponent: float) -> None:
    trace = zipf(OBJECTS, exponent, REQUESTS // 2)
    assert rate(CostAware(CACHE), trace) > hit_rate(Exact(CACHE).request, trace)


@pytest.mark.parametrize("make", [Adaptive, CostAware])
def test_a_loop_over_more_than_fits_keeps_a_part_of_it(make: type[Adaptive]) -> None:
    trace = loop(1000, 40)
    assert rate(make(800), trace, 800) >= 0.70
    assert hit_rate(Exact(800).request, trace) == 0.0, "this is what LRU makes of it"


def test_a_scan_leaves_what_is_popular_in_place() -> None:
    cache, plain = Simulator(CostAware(500), 1 << 40, 500), Exact(500)
    popular = [key_of(number) for number in zipf(2000, 1.0, 20_000)]
    for key in popular:
        cache.request(key)
        plain.request(key)
    for number in scan(5000, 100_000):
        cache.request(key_of(number))
        plain.request(key_of(number))
    ours = sum(cache.request(key) for key in popular[:500])
    theirs = sum(plain.request(key) for key in popular[:500])
    assert ours > 320 and ours > theirs + 50


def test_mixed_loads_are_served_better_than_by_lru() -> None:
    trace = mixed(2000, 40_000)
    assert rate(Adaptive(400), trace, 400) > hit_rate(Exact(400).request, trace) + 0.05


def test_sampling_comes_close_to_exact_lru() -> None:
    trace = zipf(OBJECTS, 1.0, REQUESTS // 2)
    assert rate(LeastRecentlyUsed(), trace) == pytest.approx(hit_rate(Exact(CACHE).request, trace), abs=0.01)


def test_a_window_pays_where_what_is_new_is_asked_for_again_soon() -> None:
    """Every object is asked for five times within a short while, then never again: the window must grow."""
    trace = [number for start in range(0, 12_000, 50) for _ in range(5) for number in range(start, start + 50)]
    learned = hit_rate(Simulator(Adaptive(100), 1 << 40, 100).request, trace, warm=0.75)
    assert learned >= 0.75, "4 of 5 is the best there is"


def test_cost_aware_saves_more_seconds_than_it_would_by_frequency_alone() -> None:
    trace = zipf(2000, 0.8, 40_000)

    def saved(policy: Policy) -> float:
        cache = Simulator(policy, 200_000, 1 << 40)
        for number in trace:
            dear = number % 7 == 0
            cache.request(key_of(number), 100 if dear else 1000, 5.0 if dear else 0.1)
        return cache.saved_seconds

    assert saved(CostAware(1000)) > 1.1 * saved(Adaptive(1000))


def test_old_fame_fades_under_lfu() -> None:
    policy = LeastFrequentlyUsed(half_life_seconds=200)
    cache = Simulator(policy, 1 << 40, 100)
    for _ in range(20):
        for number in range(100):
            cache.request(key_of(number))
    hits = [cache.request(key_of(1000 + number % 80)) for number in range(4000)]
    assert sum(hits[-400:]) > 350
