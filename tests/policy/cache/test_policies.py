"""What holds for every policy whatever comes, and what each decides in a few plain cases."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from supervisor.policy.cache.climb import GREATEST_SHARE, LEAST_SHARE, HillClimber
from supervisor.policy.cache.entry import Entry
from supervisor.policy.cache.settings import POLICY_NAMES, CacheSettings, PolicyName, default_limit_bytes, make_policy
from supervisor.policy.cache.sketch import MAX_COUNT, FrequencySketch, SeenBefore
from supervisor.policy.cache.windowed import Adaptive
from supervisor.policy.sizes import GB, MB
from tests.policy.cache.simulator import Simulator, key_of

SETTINGS = CacheSettings(limit_bytes=1000, limit_entries=20, ttl_seconds=50.0, half_life_seconds=10.0)

requests = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 400), st.floats(0, 10), st.booleans(), st.integers(0, 9)), max_size=200
)


@pytest.mark.parametrize("name", POLICY_NAMES)
@hypothesis_settings(max_examples=60, deadline=None)
@given(trace=requests, seed=st.integers(0, 5))
def test_never_over_the_limits_and_never_wrong_about_what_there_is(name: PolicyName, trace: list, seed: int) -> None:  # type: ignore[type-arg]
    policy = make_policy(name, SETTINGS)
    cache = Simulator(policy, 1000, 20, sample=8, seed=seed)
    for number, size_bytes, cost_seconds, small, removal in trace:
        cache.request(key_of(number), size_bytes, cost_seconds, small)
        if removal == 0:
            cache.remove(key_of(number))  # culled by somebody else: damaged, retired
        assert cache.bytes <= 1000 and len(cache.entries) <= 20
        assert cache.bytes == sum(entry.size_bytes for entry in cache.entries.values())
        if isinstance(policy, Adaptive):
            assert policy.entries == len(cache.entries)
            assert policy.window_keys() <= set(cache.entries)


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_victims_are_named_once_and_only_as_many_as_needed(name: PolicyName) -> None:
    policy = make_policy(name, SETTINGS)
    entries = [Entry(key_of(number), 10, 1.0, number, number) for number in range(16)]
    for entry in entries:
        policy.admit(entry, entry.made)
    taken = policy.victims(entries, 35, 2, 100.0)
    assert len(taken) == len(set(taken)) == 4
    assert policy.victims([], 10, 1, 100.0) in ([], taken[:0]) or isinstance(policy, Adaptive)


def entry(number: int, **changes: object) -> Entry:
    fields: dict[str, object] = {"size_bytes": 10, "cost_seconds": 1.0, "made": 0.0, "seen": 0.0, "hits": 0}
    return Entry(key_of(number), **{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "goes", "stays"),
    [
        ("lru", {"seen": 5.0, "hits": 9}, {"seen": 6.0}),
        ("lfu", {"hits": 1, "seen": 6.0}, {"hits": 3, "seen": 5.0}),
        ("lfu", {"hits": 9, "seen": 0.0}, {"hits": 1, "seen": 99.0}),
        ("ttl", {"made": 1.0, "hits": 9, "seen": 9.0}, {"made": 2.0}),
        ("adaptive", {"hits": 1}, {"hits": 2}),
        ("cost", {"hits": 1, "size_bytes": 900}, {"hits": 1, "size_bytes": 90}),
        ("cost", {"hits": 1, "cost_seconds": 0.1}, {"hits": 1, "cost_seconds": 3.0}),
    ],
)
def test_who_goes(name: PolicyName, goes: dict[str, object], stays: dict[str, object]) -> None:
    policy = make_policy(name, SETTINGS)
    assert policy.victims([entry(1, **stays), entry(2, **goes)], 0, 1, 100.0) == [key_of(2)]


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_small_values_go_only_when_there_is_nothing_else(name: PolicyName) -> None:
    policy = make_policy(name, SETTINGS)
    worst = Entry(key_of(1), 10, 0.0, 0.0, 0.0, 0, small=True)
    best = Entry(key_of(2), 10, 9.0, 9.0, 9.0, 9)
    assert policy.victims([worst, best], 0, 1, 100.0) == [best.key]
    assert policy.victims([worst], 0, 1, 100.0) == [worst.key]


def test_only_ttl_lets_entries_expire() -> None:
    old = entry(1, made=0.0)
    assert [name for name in POLICY_NAMES if make_policy(name, SETTINGS).expired(old, 50.0)] == ["ttl"]
    assert not make_policy("ttl", SETTINGS).expired(old, 49.9)


@pytest.mark.parametrize("name", POLICY_NAMES)
@pytest.mark.parametrize("state", [b"", b"nonsense", b"x\x9c" + bytes(100)])
def test_a_state_nobody_understands_is_a_new_beginning(name: PolicyName, state: bytes) -> None:
    policy = make_policy(name, SETTINGS)
    policy.load(state)
    assert policy.victims([entry(1)], 0, 1, 1.0) == [key_of(1)]


def test_what_is_popular_is_remembered_over_a_restart() -> None:
    first = Adaptive(100)
    for _ in range(5):
        first.hit(key_of(1), 0.0)
    again = Adaptive(100)
    again.load(first.dump())
    assert again.victims([entry(1), entry(2)], 0, 1, 1.0) == [key_of(2)]


def test_the_sketch_counts_never_too_little_and_fades() -> None:
    sketch, random = FrequencySketch(1000), Random(1)
    true = [0] * 1000
    for _ in range(4000):
        number = min(int(random.expovariate(0.01)), 999)
        true[number] += 1
        sketch.add(key_of(number))
    assert all(sketch.count(key_of(number)) >= min(count, MAX_COUNT) for number, count in enumerate(true))
    exact = sum(sketch.count(key_of(number)) == min(count, MAX_COUNT) for number, count in enumerate(true))
    assert exact > 950
    for number in range(10_000, 20_000):
        sketch.add(key_of(number))
    assert sketch.count(key_of(0)) < MAX_COUNT


def test_the_sketch_s_memory_does_not_grow_with_the_cache() -> None:
    assert sum(len(row) for row in FrequencySketch(10**9)._rows) <= 4 << 20


def test_what_was_seen_is_known_and_what_was_not_seldom_mistaken() -> None:
    seen = SeenBefore()
    assert not any(seen.test_and_add(key_of(number)) for number in range(1000))
    again = SeenBefore()
    assert again.load(seen.dump()) and not again.load(b"nonsense")
    assert all(again.test_and_add(key_of(number)) for number in range(1000))
    assert not again.test_and_add(key_of(5000))


@given(hits=st.lists(st.booleans(), max_size=500))
@hypothesis_settings(max_examples=50, deadline=None)
def test_the_window_s_share_stays_within_its_bounds(hits: list[bool]) -> None:
    climber = HillClimber(5)
    for hit in hits:
        climber.saw(hit=hit)
        assert LEAST_SHARE <= climber.share <= GREATEST_SHARE


def test_a_climber_goes_on_while_it_gets_better_and_turns_when_it_does_not() -> None:
    climber = HillClimber(10)

    def period(hits: int) -> float:
        for number in range(10):
            climber.saw(hit=number < hits)
        return climber.share

    shares = [period(hits) for hits in (1, 3, 5, 4)]
    assert shares[0] < shares[1] < shares[2] > shares[3]


def test_settings_contradict_themselves_nowhere() -> None:
    with pytest.raises(ValueError, match="limit_bytes cannot be negative"):
        CacheSettings(limit_bytes=-1)
    with pytest.raises(ValueError, match="above 1 MB"):
        CacheSettings(limit_bytes=1, inline_bytes=2 * MB)
    assert default_limit_bytes(100 * GB) == 5 * GB
    assert default_limit_bytes(1000 * GB) == 10 * GB
    assert default_limit_bytes(0, held_bytes=1000 * MB) == 50 * MB
