"""Groups of vectors that point the same way: exact, block by block, so that no table of all pairs is ever held.

A block of rows is multiplied with each later block, and only the pairs above the threshold are looked at. 100,000
vectors of 512 numbers are 2.6 million million multiplications, which two cores do in about a minute. Equal rows are
compared once. What holds together is found by union-find; a row whose near ones are all in its group costs one look.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from supervisor.policy.alike import Groups

ROWS, COLUMNS = 2048, 2048
"""A block of similarities takes 16 MB."""


def group_vectors(matrix: Any, rows: Sequence[int], limit: float) -> list[list[int]]:
    """Returns groups of two and more places in `rows`: each is within `limit` (1 - cosine) of another one.

    `matrix` has a vector a row; `rows` are those that count. A vector of zeros is like nothing but its equals.
    """
    import numpy

    numbers: dict[bytes, int] = {}
    firsts: list[int] = []
    of_place: list[int] = []
    for row in rows:
        digest = hashlib.blake2b(matrix[row].tobytes(), digest_size=16).digest()
        number = numbers.setdefault(digest, len(numbers))
        if number == len(firsts):
            firsts.append(row)
        of_place.append(number)
    groups = Groups(len(firsts))
    _link(matrix, numpy.asarray(firsts, "int64"), 1.0 - limit, groups)
    places: dict[int, list[int]] = {}
    for place, number in enumerate(of_place):
        places.setdefault(groups.find(number), []).append(place)
    return [group for group in places.values() if len(group) > 1]


def farthest(matrix: Any, best: int, others: Sequence[int]) -> float:
    """Returns how far the farthest of the rows is from the row `best`, as 1 - cosine."""
    import numpy

    reference = _unit(matrix, numpy.asarray([best]))[0]
    least = 1.0
    for start in range(0, len(others), ROWS):
        least = min(least, float((_unit(matrix, numpy.asarray(others[start : start + ROWS])) @ reference).min()))
    return max(0.0, 1.0 - least)


def _link(matrix: Any, rows: Any, threshold: float, groups: Groups) -> None:
    import numpy

    labels = numpy.arange(len(rows))
    for start in range(0, len(rows), ROWS):
        block = _unit(matrix, rows[start : start + ROWS])
        for other in range(start, len(rows), COLUMNS):
            near = block @ _unit(matrix, rows[other : other + COLUMNS]).T >= threshold
            if other == start:
                near = numpy.triu(near, 1)
            changed = False
            for row in numpy.flatnonzero(near.any(axis=1)).tolist():
                found = labels[other + numpy.flatnonzero(near[row])]
                if (found != labels[start + row]).any():
                    for number in numpy.unique(found).tolist():
                        groups.unite(start + row, number)
                    labels[start + row] = groups.find(start + row)
                    changed = True
            if changed:
                labels = numpy.asarray([groups.find(number) for number in range(len(rows))])


def _unit(matrix: Any, rows: Any) -> Any:
    import numpy

    block = matrix[rows].astype("float32")
    return block / numpy.maximum(numpy.linalg.norm(block, axis=1, keepdims=True), 1e-12)
