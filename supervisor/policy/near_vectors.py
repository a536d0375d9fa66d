"""How a search for near vectors fits into the memory there is, and how many directions make it cheapest.

Of n vectors, all pairs are bounded block by block; what is held beside one block grows with n alone: some bytes for
each vector, and its shares along the directions that the bounds are made of. With little room blocks get smaller and
directions fewer, which costs time; with less than that the search says so instead of being killed half-way.
"""

from collections.abc import Sequence
from typing import NamedTuple

BLOCK_ROWS = 1024
"""Of a block, both ways: its bounds take 4 MB, about what a core's cache holds."""
LEAST_BLOCK_ROWS = 128
"""Smaller ones save less than 1 MB, and set up for longer than they compute."""
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
"""How many directions are tried."""
EXACT_WIDTH = 32
"""Of exact bounds. Where more would be needed, an estimate needs a third of them."""
_ONE_IN_1000 = 3.09
"""Standard deviations that the normal distribution exceeds once in 1,000 times."""
_ENOUGH_DIRECTIONS = 64
"""With so many most galleries are searched fastest: a larger block is not worth having fewer."""
_BYTES_A_ROW = 200
"""Measured as 160: while equal rows are looked for, each has a digest, a number and its place."""
_LOW_BYTES = 16_000_000
"""Of headroom: others are taking what was there, so blocks get smaller."""
_LEAST_BYTES = 4_000_000
"""Of headroom, below which the search ends by itself."""
_FIXED_COST = 8.0
"""What a pair in a block costs whatever the number of directions, in directions: 0.15 ns; a direction takes 0.017."""
_WHOLE_PAIR_COST = 150.0
"""A pair that is picked out and multiplied whole costs as much for each number as so many pairs within a block do."""
_WHOLE_BLOCK_COST = 1.2
"""Where many pairs of a block are doubtful, the whole block is multiplied: so much for each number of each pair."""


class Plan(NamedTuple):
    """`block_rows` vectors are compared with as many at once, by at most `directions` directions; 0: by all numbers."""

    block_rows: int
    directions: int


class Judged(NamedTuple):
    """`doubtful`: the share of pairs of which so many numbers leave open that they are near, and which are not."""

    numbers: int
    doubtful: float


def headroom_bytes(budget_bytes: int, group_used_bytes: int | None, available_bytes: int) -> int:
    """Returns what a process beside the pool may take: what its control group leaves, where one has a limit, and the
    machine has free; without one the budget is what the machine can spare."""
    if group_used_bytes is None:
        return budget_bytes
    return min(budget_bytes - group_used_bytes, available_bytes)


def block_bytes(rows: int, dimensions: int) -> int:
    """Returns what one block takes: bounds, marks and places of its pairs, and its vectors as float32, both ways."""
    return rows * rows * 10 + rows * dimensions * 4 * 4


def least_bytes(count: int, dimensions: int) -> int:
    """Returns the bytes below which `count` vectors are not searched."""
    return count * _BYTES_A_ROW + block_bytes(LEAST_BLOCK_ROWS, dimensions) + _LEAST_BYTES


def plan(headroom_bytes: int, count: int, dimensions: int) -> Plan | None:
    """Returns how `count` vectors are searched within so many bytes; None: they cannot be."""
    rows, best = BLOCK_ROWS, None
    while rows >= LEAST_BLOCK_ROWS:
        left = headroom_bytes - count * _BYTES_A_ROW - block_bytes(rows, dimensions) - _LEAST_BYTES
        if left >= 0:
            fit = left // (4 * max(count, 1)) - 1
            best = Plan(rows, max([width for width in WIDTHS if width <= fit], default=0))
            if best.directions >= _ENOUGH_DIRECTIONS:
                break
        rows //= 2
    return best


def rows_now(rows: int, headroom_bytes: int) -> int:
    """Returns how many rows the next block has, looking at what is left beside this one; 0: the search ends."""
    if headroom_bytes >= _LOW_BYTES:
        return rows
    if rows > LEAST_BLOCK_ROWS:
        return rows // 2
    return rows if headroom_bytes >= _LEAST_BYTES else 0


def cheapest(judged: Sequence[Judged], dimensions: int) -> int | None:
    """Returns the place of what makes a search cheapest; None where multiplying all numbers does. It is not taken
    where it would not halve that: what remains open on a gallery is more than on a sample."""
    chosen, least = None, 0.5 * (dimensions + _FIXED_COST)
    for place, (numbers, doubtful) in enumerate(judged):
        cost = numbers + _FIXED_COST + min(doubtful * _WHOLE_PAIR_COST, _WHOLE_BLOCK_COST) * dimensions
        if cost < least:
            chosen, least = place, cost
    return chosen


def stretch(width: int) -> float:
    """Returns how many times its proper part the square of a difference shows along `width` random directions once in
    1,000 times: the quantile of chi-square (Wilson, Hilferty 1931), a little more than that of orthonormal ones."""
    part = 2.0 / (9.0 * width)
    return float((1.0 - part + _ONE_IN_1000 * part**0.5) ** 3)
