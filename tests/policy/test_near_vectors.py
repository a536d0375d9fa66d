"""A search for near vectors fits into the memory there is, or says that it does not; the cheapest bound is taken."""

import math

import pytest

from supervisor.policy.near_vectors import (
    BLOCK_ROWS,
    LEAST_BLOCK_ROWS,
    WIDTHS,
    Judged,
    Plan,
    block_bytes,
    cheapest,
    headroom_bytes,
    least_bytes,
    plan,
    rows_now,
    stretch,
)
from supervisor.policy.sizes import MB


@pytest.mark.parametrize("count", [0, 1, 5_000, 100_000, 1_000_000])
@pytest.mark.parametrize("dimensions", [1, 512, 8192])
def test_the_plan_fits_and_grows_with_what_there_is(count: int, dimensions: int) -> None:
    least = least_bytes(count, dimensions)
    assert plan(least - 1, count, dimensions) is None
    before = Plan(0, 0)
    for more in (0, MB, 4 * MB, 20 * MB, 100 * MB, 1000 * MB, 5000 * MB):
        planned = plan(least + more, count, dimensions)
        assert planned is not None and planned.block_rows >= LEAST_BLOCK_ROWS
        held = 4 * count * (planned.directions + 1) * (planned.directions > 0) + block_bytes(
            planned.block_rows, dimensions
        )
        assert held <= least + more
        assert planned.directions >= min(before.directions, 64), "more room, fewer directions"
        before = planned
    assert before == Plan(BLOCK_ROWS, WIDTHS[-1])


def test_a_hundred_thousand_fit_into_200_mb_beside_what_the_command_holds() -> None:
    assert least_bytes(100_000, 512) < 30 * MB
    assert plan(100 * MB, 100_000, 512) == Plan(BLOCK_ROWS, 128)
    assert plan(60 * MB, 100_000, 512) == Plan(512, 64)


def test_blocks_get_smaller_while_others_take_the_memory_and_then_the_search_ends() -> None:
    rows, seen = BLOCK_ROWS, []
    for left in (50 * MB, 15 * MB, 15 * MB, 15 * MB, 15 * MB, 3 * MB):
        rows = rows_now(rows, left)
        seen.append(rows)
    assert seen == [1024, 512, 256, 128, 128, 0]
    assert rows_now(BLOCK_ROWS, -1) == BLOCK_ROWS // 2, "what a large block holds may be all that is missing"


def test_headroom_is_what_the_group_leaves_and_the_machine_has() -> None:
    assert headroom_bytes(500, None, 900) == 500
    assert headroom_bytes(500, 200, 900) == 300
    assert headroom_bytes(500, 200, 100) == 100
    assert headroom_bytes(500, 600, 900) == -100


def test_the_cheapest_bound_is_that_which_leaves_few_pairs_open() -> None:
    assert cheapest([], 512) is None
    assert cheapest([Judged(17, 0.001), Judged(33, 0.0)], 512) == 1
    assert cheapest([Judged(17, 0.00001), Judged(33, 0.0)], 512) == 0
    assert cheapest([Judged(17, 0.5), Judged(257, 0.0)], 512) is None, "it would hardly be quicker than all numbers"


def test_a_sketch_shows_more_than_its_stretch_once_in_a_thousand() -> None:
    for width, quantile in ((16, 39.252), (32, 62.487), (64, 104.716), (256, 330.519)):  # of chi-square, 0.999
        assert math.isclose(stretch(width), quantile / width, rel_tol=0.01)
