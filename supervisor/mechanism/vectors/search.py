"""Groups of vectors that point the same way: exact, and without looking at all numbers of all pairs.

Of a vector a few numbers say most: its share along some fixed directions, the principal ones of a sample. Two vectors'
cosine is at most the product of those shares plus the product of what is left of each (Cauchy-Schwarz), so a pair for
which even that is below the threshold is passed over; the few others are multiplied whole. How many directions pay is
found on the sample: of 512 some tens where images differ much, all where vectors are alike or the threshold is low.
The bounds are computed block by block, so that no table of all pairs is ever held.

Equal rows are compared once. What holds together is found by union-find; pairs of one group are not looked at again.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from supervisor.policy.alike import Groups

ROWS = 1024
"""Of a block, both ways: its bounds take 4 MB."""
SAMPLE_ROWS = 2048
"""Of so few rows all pairs are multiplied at once; of more, so many are the sample."""
PRINCIPAL_DIMENSIONS = 1024
"""Those of longer vectors take seconds to find: they are searched among so many of their numbers."""
PAIRS_AT_ONCE = 4096
"""Whole vectors side by side: 16 MB at 512 numbers."""
ROUNDING = 1e-4
"""What float32 may be wrong by in a bound; a thousand times what it is."""
WHOLE_PAIR_COST = 100.0
"""Measured: a pair that is picked out and multiplied whole costs as much as so many pairs within a block do."""
FIXED_COST = 12.0
"""What a pair in a block costs whatever the number of directions, in directions: it is written and compared."""


def group_vectors(
    matrix: Any, rows: Sequence[int], limit: float, let_go: Callable[[], None] = lambda: None
) -> list[list[int]]:
    """Returns groups of two and more places in `rows`: each is within `limit` (1 - cosine) of another one.

    `matrix` has a vector a row; `rows` are those that count. A vector of zeros is like nothing but its equals.
    `let_go` is called when the matrix was walked through: its pages may be given back.
    """
    import numpy

    numbers: dict[bytes, int] = {}
    firsts: list[int] = []
    of_place: list[int] = []
    for at, row in enumerate(rows):
        if at % ROWS == 0:
            let_go()
        digest = hashlib.blake2b(matrix[row].tobytes(), digest_size=16).digest()
        number = numbers.setdefault(digest, len(numbers))
        if number == len(firsts):
            firsts.append(row)
        of_place.append(number)
    numbers.clear()
    let_go()
    search = _Search(matrix, numpy.asarray(firsts, "int64"), 1.0 - limit, let_go)
    search.run()
    places: dict[int, list[int]] = {}
    for place, number in enumerate(of_place):
        places.setdefault(search.groups.find(number), []).append(place)
    return [group for group in places.values() if len(group) > 1]


def farthest(matrix: Any, best: int, others: Sequence[int]) -> float:
    """Returns how far the farthest of the rows is from the row `best`, as 1 - cosine."""
    import numpy

    reference = _unit(matrix, numpy.asarray([best]))[0]
    least = 1.0
    for start in range(0, len(others), ROWS):
        least = min(least, float((_unit(matrix, numpy.asarray(others[start : start + ROWS])) @ reference).min()))
    return max(0.0, 1.0 - least)


class _Search:
    def __init__(self, matrix: Any, rows: Any, threshold: float, let_go: Callable[[], None]) -> None:
        import numpy

        self._matrix, self._rows, self._threshold, self._let_go = matrix, rows, threshold, let_go
        self.groups = Groups(len(rows))
        self._labels = numpy.arange(len(rows))

    def run(self) -> None:
        """Unites all that are near."""
        import numpy

        directions = self._directions()
        shares = self._shares(directions) if directions is not None else None
        product = numpy.empty((ROWS, ROWS), "float32")
        near = numpy.empty((ROWS, ROWS), "bool")
        threshold = self._threshold - (ROUNDING if shares is not None else 0.0)
        count = len(self._rows)
        for start in range(0, count, ROWS):
            block = self._block(shares, start, ROWS)
            for other in range(start, count, ROWS):
                column = self._block(shares, other, ROWS)
                found = product[: len(block), : len(column)]
                numpy.matmul(block, column.T, out=found)
                mask = near[: len(block), : len(column)]
                numpy.greater_equal(found, threshold, out=mask)
                if other == start:
                    mask &= ~numpy.tri(len(block), dtype="bool")
                if mask.any():
                    self._settle(start, other, mask, whole=shares is None)
            self._let_go()

    def _settle(self, start: int, other: int, mask: Any, *, whole: bool) -> None:
        """Unites the pairs of a block that are near; where the mask is of bounds, those are multiplied first."""
        import numpy

        for row in numpy.flatnonzero(mask.any(axis=1)).tolist():
            columns = other + numpy.flatnonzero(mask[row])
            columns = columns[self._labels[columns] != self._labels[start + row]]
            if not whole:
                columns = self._really_near(start + row, columns)
            if len(columns):
                for number in numpy.unique(self._labels[columns]).tolist():
                    self.groups.unite(start + row, number)
                self._relabel(numpy.append(columns, start + row))

    def _really_near(self, row: int, columns: Any) -> Any:
        import numpy

        if not len(columns):
            return columns
        one = _unit(self._matrix, self._rows[row : row + 1])[0]
        parts = [columns[at : at + PAIRS_AT_ONCE] for at in range(0, len(columns), PAIRS_AT_ONCE)]
        found = [part[_unit(self._matrix, self._rows[part]) @ one >= self._threshold] for part in parts]
        return numpy.concatenate(found)

    def _relabel(self, changed: Any) -> None:
        """Gives all that are now one group one label."""
        import numpy

        old = numpy.unique(self._labels[changed])
        new = self.groups.find(int(changed[-1]))
        if len(old) > 1 or old[0] != new:
            self._labels[numpy.isin(self._labels, old)] = new

    def _block(self, shares: Any, start: int, count: int) -> Any:
        if shares is None:
            return _unit(self._matrix, self._rows[start : start + count])
        return shares[start : start + count]

    def _shares(self, directions: Any) -> Any:
        """Returns each vector's shares along the directions and, as the last number, the length of what is left."""
        import numpy

        wide = directions.shape[1]
        shares = numpy.empty((len(self._rows), wide + 1), "float32")
        for start in range(0, len(self._rows), ROWS):
            block = _unit(self._matrix, self._rows[start : start + ROWS])
            part = shares[start : start + ROWS]
            numpy.matmul(block, directions, out=part[:, :wide])
            left = numpy.einsum("ij,ij->i", block, block) - numpy.einsum("ij,ij->i", part[:, :wide], part[:, :wide])
            part[:, wide] = numpy.sqrt(numpy.maximum(left, 0.0))
        self._let_go()
        return shares

    def _directions(self) -> Any:
        """Returns the directions, a column each, that make the search cheapest; None where none do."""
        import numpy

        if len(self._rows) <= SAMPLE_ROWS:
            return None
        sample = _unit(self._matrix, self._rows[:: len(self._rows) // SAMPLE_ROWS][:SAMPLE_ROWS])
        # Directions say more of the vectors that they were found on than of others: judged is by others.
        learned, sample = sample[::2], sample[1::2]
        dimensions = sample.shape[1]
        seen = min(dimensions, PRINCIPAL_DIMENSIONS)
        _, columns = numpy.linalg.eigh(learned[:, :seen].T @ learned[:, :seen])
        all_directions = numpy.zeros((dimensions, seen), "float32")
        all_directions[:seen] = columns[:, ::-1]
        shares = sample @ all_directions
        cheapest, chosen = float(dimensions), 0
        for wide in (16, 32, 48, 64, 96, 128, 192, 256):
            if wide >= min(seen, cheapest):
                break
            part = shares[:, :wide]
            left = numpy.sqrt(numpy.maximum(1.0 - numpy.einsum("ij,ij->i", part, part), 0.0))
            bounds = part @ part.T + numpy.outer(left, left)
            doubtful = float((bounds >= self._threshold - ROUNDING).mean()) - 1 / len(sample)
            cost = wide + 1 + max(0.0, doubtful) * WHOLE_PAIR_COST * dimensions
            if cost < cheapest:
                cheapest, chosen = cost, wide
        return all_directions[:, :chosen] if chosen else None


def _unit(matrix: Any, rows: Any) -> Any:
    import numpy

    block = matrix[rows].astype("float32")
    return block / numpy.maximum(numpy.linalg.norm(block, axis=1, keepdims=True), 1e-12)
