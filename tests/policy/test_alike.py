"""Groups of near hashes: the same as by comparing all pairs, on any mixture; and quick where nearly all are alike."""

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from supervisor.policy.alike import MAX_DISTANCE, Groups, distance, group_hashes, masks_within, radii

NUMBERS = some.integers(0, 2**64 - 1)


def by_all_pairs(hashes: list[int], limit: int) -> list[list[int]]:
    """The definition, word for word."""
    groups = Groups(len(hashes))
    for one in range(len(hashes)):
        for other in range(one):
            if distance(hashes[one], hashes[other]) <= limit:
                groups.unite(one, other)
    return groups.several()


def turned(value: int, bits: int, source: random.Random) -> int:
    """Returns the value with so many bits turned."""
    return value ^ sum(1 << bit for bit in source.sample(range(64), bits))


@settings(max_examples=60, deadline=None)
@given(some.lists(NUMBERS, max_size=5), some.integers(0, MAX_DISTANCE), some.integers(0, 2**32), some.integers(1, 120))
def test_groups_are_those_of_all_pairs(centres: list[int], limit: int, seed: int, count: int) -> None:
    source = random.Random(seed)
    around = [*centres, 0, source.getrandbits(64)]
    hashes = [turned(source.choice(around), source.randrange(14), source) for _ in range(count)]
    assert group_hashes(hashes, limit) == by_all_pairs(hashes, limit)


@pytest.mark.parametrize("limit", [1, 3, 4, 8, 11])
@pytest.mark.parametrize("kind", ["low bits", "few bits", "one chunk", "chains", "crowd and loners"])
def test_groups_are_those_of_all_pairs_in_crowded_buckets(kind: str, limit: int) -> None:
    source = random.Random(limit)
    make: dict[str, Callable[[int], int]] = {
        "low bits": lambda number: source.getrandbits(20),
        "few bits": lambda number: turned(0, source.randrange(10), source),
        "one chunk": lambda number: source.getrandbits(48) & source.getrandbits(48),
        "chains": lambda number: ((1 << number % 65) - 1) ^ (source.getrandbits(2) << 62),
        "crowd and loners": lambda number: turned(0, source.choice([2, 3, 4, 9, 12, 30]), source),
    }
    hashes = [make[kind](number) for number in range(700)]
    assert group_hashes(hashes, limit) == by_all_pairs(hashes, limit)


def test_equal_hashes_are_a_group_at_distance_0_and_others_are_not() -> None:
    assert group_hashes([7, 9, 7, 8, 9], 0) == [[0, 2], [1, 4]]
    assert group_hashes([], 8) == group_hashes([5], 8) == []


@pytest.mark.parametrize("kind", ["all alike", "flat"])
def test_many_flat_pictures_take_no_table_of_pairs(kind: str) -> None:
    source = random.Random(3)
    hashes = [0 if kind == "all alike" else turned(0, source.randrange(5), source) for _ in range(30_000)]
    began = time.process_time()
    assert group_hashes(hashes, 8) == [list(range(30_000))]
    assert time.process_time() - began < 3, "450 million pairs take half a minute"


def test_a_chunk_within_its_radius_is_there_whenever_the_whole_is() -> None:
    for chunks in (1, 2, 3, 4):
        for limit in range(MAX_DISTANCE + 1):
            least = sum(radius + 1 for radius in radii(chunks, limit))
            assert least > limit, "differences could hide in all chunks at once"
    assert sum(map(len, masks_within(2))) == 16 + 120
    assert all(mask.bit_length() - 1 == bit for bit, masks in enumerate(masks_within(3)) for mask in masks)
