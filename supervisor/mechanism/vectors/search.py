"""Groups of vectors that point the same way, without looking at all numbers of all pairs.

A few numbers of two vectors tell of most pairs that they cannot be near (`bounds`); the few others are multiplied
whole, so that whatever is found near is. It is done block by block, so that no table of all pairs is ever held, and
pairs that are known to be of one group are not looked at again (`flocks`).

Galleries may be all alike, and then nearly every pair is near. Two things keep that from becoming as many products:
equal rows are compared once, and some vectors, the probes, are multiplied with all others first. What is near the same
probe is one group; sorted by group, a block whose rows and columns are all of one is passed over. And where a block has
many pairs in doubt it is multiplied as a whole, which is quicker than picking them out.

Memory is looked at before the search and at every row of blocks: others may need it meanwhile (`policy.near_vectors`).
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from protocol.errors import MachineError
from supervisor.mechanism.vectors.bounds import Bound, find_bound
from supervisor.mechanism.vectors.flocks import Flocks
from supervisor.policy.near_vectors import BLOCK_ROWS, least_bytes, plan, rows_now
from supervisor.policy.sizes import human

SAMPLE_ROWS = 2048
"""Of so few rows all pairs are multiplied at once; of more, so many are the sample."""
SAMPLE_NUMBERS = 1 << 20
"""Of vectors so long that the sample would have more than twice as many numbers, fewer are taken."""
PROBES = 256
"""Multiplied with all others: 0.3 s for 100,000 of 512 numbers, and a group of one in a hundred is hit by two."""
ROWS_AT_ONCE = 64
"""Scattered ones, read from the file: at most some 25 MB of it are mapped."""
NUMBERS_AT_ONCE = 1 << 20
"""Of pairs that are multiplied whole, on either side: 4 MB as float32."""
DOUBTED_AT_ONCE = 1 << 15
"""So many pairs are noted before they are multiplied whole."""
DOUBTFUL_PART = 160
"""To multiply one of 160 pairs of a block takes as long as the whole block does."""
ALIKE = 1e-6
"""Cosines are computed in float32, and told apart so far."""


def compute_alone() -> None:
    """Keeps products of matrices to one thread, unless the environment says otherwise; call it before anything is
    loaded. Of blocks this small a second thread waits more than it works, and the cores are the workers'."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def group_vectors(
    matrix: Any,
    rows: Sequence[int],
    limit: float,
    let_go: Callable[[], None] = lambda: None,
    headroom: Callable[[], int] = lambda: 1 << 40,
    *,
    exact: bool = False,
) -> list[list[int]]:
    """Returns groups of two and more places in `rows`: each is within `limit` (1 - cosine) of another one.

    `matrix` has a vector a row; `rows` are those that count. A vector of zeros is like nothing but its equals.
    `let_go` is called when parts of the matrix were read: its pages may be given back. `headroom` tells how many bytes
    more this process may take; raises MachineError where they are too few, before the search or while it runs. Unless
    `exact`, an estimate is used where bounds would take several times as long: of pairs right at the limit it misses
    one in 1,000, of nearer ones hardly any.
    """
    planned = plan(headroom(), len(rows), matrix.shape[1])
    if planned is None:
        raise _no_room(len(rows), matrix.shape[1], headroom())
    firsts, of_place = _distinct(matrix, rows, let_go)
    search = _Search(matrix, firsts, 1.0 - limit, let_go, headroom, exact=exact)
    search.run(planned.block_rows, planned.directions)
    labels = search.flocks.labels[of_place].tolist()
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    return [group for group in places.values() if len(group) > 1]


def farthest(matrix: Any, best: int, others: Sequence[int], let_go: Callable[[], None] = lambda: None) -> float:
    """Returns how far the farthest of the rows is from the row `best`, as 1 - cosine, computed in float64."""
    import numpy

    reference = _unit(matrix, numpy.asarray([best]), "float64")[0]
    least = 1.0
    for start in range(0, len(others), ROWS_AT_ONCE):
        if start:
            let_go()
        part = _unit(matrix, numpy.asarray(others[start : start + ROWS_AT_ONCE]), "float64")
        least = min(least, float((part @ reference).min()))
    return max(0.0, 1.0 - least)


def _no_room(count: int, dimensions: int, headroom_bytes: int) -> MachineError:
    return MachineError(
        f"searching {count:,} vectors of {dimensions} numbers takes {human(least_bytes(count, dimensions))} or more, "
        f"and {human(max(headroom_bytes, 0))} of memory are left: name a batch or a directory, or make room"
    )


def _distinct(matrix: Any, rows: Sequence[int], let_go: Callable[[], None]) -> tuple[Any, Any]:
    """Returns the first row of each set of equal ones, and for each place which of those it is equal to."""
    import numpy

    chosen = numpy.asarray(rows, "int64")
    size = matrix.shape[1] * matrix.itemsize
    numbers: dict[bytes, int] = {}
    of_place = numpy.empty(len(chosen), "int32")
    firsts: list[int] = []
    for start in range(0, len(chosen), BLOCK_ROWS):
        part = chosen[start : start + BLOCK_ROWS]
        content = memoryview(matrix[part].tobytes())
        for at, row in enumerate(part.tolist()):
            digest = hashlib.blake2b(content[at * size : (at + 1) * size], digest_size=16).digest()
            number = numbers.setdefault(digest, len(numbers))
            if number == len(firsts):
                firsts.append(row)
            of_place[start + at] = number
        let_go()
    return numpy.asarray(firsts, "int64"), of_place


class _Search:
    """Unites what is near among the rows at `firsts`; each is known by its place there."""

    def __init__(
        self,
        matrix: Any,
        firsts: Any,
        threshold: float,
        let_go: Callable[[], None],
        headroom: Callable[[], int],
        *,
        exact: bool,
    ) -> None:
        self._matrix, self._firsts, self._threshold = matrix, firsts, threshold - ALIKE
        self._let_go, self._headroom, self._exact = let_go, headroom, exact
        self._bound: Bound | None = None
        self._shown: Any = None
        self.flocks = Flocks(len(firsts))
        self._doubted: list[tuple[Any, Any]] = []
        self._pairs_at_once = max(64, NUMBERS_AT_ONCE // matrix.shape[1])

    def run(self, rows: int, directions_max: int) -> None:
        """Unites all that are near, in blocks of `rows`."""
        sample = self._sample(SAMPLE_ROWS) if len(self._firsts) > SAMPLE_ROWS else None
        if sample is not None:
            self._bound = find_bound(self._unit(sample), self._threshold, directions_max, exact=self._exact)
            self._shown = self._probed(self._bound, rows)
        order = self.flocks.in_order()
        start = 0
        while start < len(order):
            rows = rows_now(rows, self._headroom())
            if not rows:
                raise _no_room(len(order), self._matrix.shape[1], self._headroom())
            self._search_row(order, start, rows)
            self._settle_doubted()
            start += rows

    def _search_row(self, order: Any, start: int, rows: int) -> None:
        """Compares a block of vectors with itself and with all that come later in the order."""
        import numpy

        here = order[start : start + rows]
        block = self._block(here)
        product = numpy.empty((rows, rows), "float32")
        near = numpy.empty((rows, rows), "bool")
        threshold = self._threshold if self._bound is None else self._bound.threshold
        for other in range(start, len(order), rows):
            there = order[other : other + rows]
            if self.flocks.are_one(here, there):
                continue
            column = self._block(there)
            if self._bound is not None:
                column = self._bound.columns(column)
            found = product[: len(block), : len(column)]
            numpy.matmul(block, column.T, out=found)
            mask = near[: len(block), : len(column)]
            numpy.greater_equal(found, threshold, out=mask)
            if other == start:
                mask &= ~numpy.tri(len(block), dtype="bool")
            count = int(numpy.count_nonzero(mask))
            if count and self._bound is None:
                self.flocks.unite_marked(here, there, mask)
            elif count:
                self._doubt(here, there, mask, count)

    def _doubt(self, here: Any, there: Any, mask: Any, count: int) -> None:
        """Notes the pairs that may be near, or multiplies the whole block where they are many."""
        import numpy

        labels = self.flocks.labels
        many = mask.size // DOUBTFUL_PART
        if count > many:
            mask &= labels[here][:, None] != labels[there]
            count = int(numpy.count_nonzero(mask))
        if count > many:
            mask &= self._unit(here) @ self._unit(there).T >= self._threshold
            self.flocks.unite_marked(here, there, mask)
        elif count:
            places = numpy.flatnonzero(mask)
            ones, others = here[places // mask.shape[1]], there[places % mask.shape[1]]
            apart = labels[ones] != labels[others]
            self._doubted.append((ones[apart], others[apart]))
            if sum(len(ones) for ones, _ in self._doubted) > DOUBTED_AT_ONCE:
                self._settle_doubted()

    def _settle_doubted(self) -> None:
        """Multiplies the noted pairs whole, and unites those that are near."""
        import numpy

        doubted, self._doubted = self._doubted, []
        if not doubted:
            return
        all_ones, all_others = (numpy.concatenate(each) for each in zip(*doubted, strict=True))
        for start in range(0, len(all_ones), self._pairs_at_once):
            ones, others = (each[start : start + self._pairs_at_once] for each in (all_ones, all_others))
            apart = self.flocks.labels[ones] != self.flocks.labels[others]
            ones, others = ones[apart], others[apart]
            if len(ones):
                near = numpy.einsum("ij,ij->i", self._unit(ones), self._unit(others)) >= self._threshold
                self.flocks.unite(ones[near], others[near])

    def _probed(self, bound: Bound | None, rows: int) -> Any:
        """Unites what is near the same probe; returns what the bound shows of each vector, None where there is none."""
        import numpy

        probes = self._sample(PROBES)
        columns = self._unit(probes).T
        shown: Any = None if bound is None else numpy.empty((len(self._firsts), bound.numbers), "float32")
        for start in range(0, len(self._firsts), rows):
            there = numpy.arange(start, min(start + rows, len(self._firsts)))
            block = self._unit(there)
            if bound is not None:
                shown[start : start + rows] = bound.rows(block)
            mask = block @ columns >= self._threshold
            mask &= there[:, None] != probes
            if mask.any():
                self.flocks.unite_marked(there, probes, mask)
            self._let_go()
        return shown

    def _sample(self, count: int) -> Any:
        """Returns places of so many vectors, fewer where they are long, always the same ones."""
        import numpy

        count = min(count, max(256, SAMPLE_NUMBERS // self._matrix.shape[1]), len(self._firsts))
        return numpy.asarray(sorted(Random(0).sample(range(len(self._firsts)), count)))

    def _block(self, places: Any) -> Any:
        return self._unit(places) if self._bound is None else self._shown[places]

    def _unit(self, places: Any) -> Any:
        """Returns vectors scaled to length 1. Around a row that is read the kernel maps some 400 KB of the file: where
        rows are scattered they are given back before they are all of it."""
        import numpy

        rows = self._firsts[places]
        if len(rows) <= ROWS_AT_ONCE or rows[-1] - rows[0] < 4 * len(rows) <= 4 * BLOCK_ROWS:
            return _unit(self._matrix, rows, "float32")
        block = numpy.empty((len(rows), self._matrix.shape[1]), "float32")
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block[start : start + ROWS_AT_ONCE] = _unit(self._matrix, rows[start : start + ROWS_AT_ONCE], "float32")
            self._let_go()
        return block


def _unit(matrix: Any, rows: Any, kind: str) -> Any:
    """Returns rows scaled to length 1; those of zeros stay as they are."""
    import numpy

    block = matrix[rows].astype(kind)
    lengths = numpy.sqrt(numpy.einsum("ij,ij->i", block, block))
    block /= numpy.maximum(lengths, 1e-12)[:, None]
    return block
