"""What a few numbers of two vectors say of their cosine, so that most pairs need not be multiplied whole.

`Shares` are exact. Of a vector a few numbers say most: its share along some fixed directions, the principal ones of a
sample. Two vectors' cosine is at most the product of those shares plus the product of the lengths of what is left of
each (Cauchy-Schwarz). Some tens of 512 do where images differ much, none where vectors lie in a narrow cone or differ
in all numbers alike: what is left is then most of their difference.

`Sketches` are for those. Along random directions a difference of two vectors shows with its proper part of its square,
whichever way it points (Johnson, Lindenstrauss 1984), and for a pair at the threshold more than `stretch` times that
part once in 1,000; the nearer a pair, the rarer. Some principal directions are taken as they are, random ones stand for
what is left beside them. 16 to 64 in all do nearly always.

Which of them and how many directions pay is judged on the sample.
"""

from random import Random
from typing import Any, Protocol

from supervisor.policy.near_vectors import EXACT_WIDTH, WIDTHS, Judged, cheapest, stretch

PRINCIPAL_DIMENSIONS = 1024
"""Those of longer vectors take seconds to find: they are searched among so many of their numbers."""
PRINCIPAL_BESIDE = (16, 32)
"""So many principal directions are tried beside random ones."""
ROUNDING = 1e-4
"""What float32 may be wrong by in a bound; a thousand times what it is."""
_LEFT_ROUNDING = 1e-6
"""What float32 may be wrong by in the square of what is left: added, for a bound must not be too low."""


class Bound(Protocol):
    """Tells by few numbers of two vectors (of length 1, one a row) whether they may be near."""

    numbers: int
    """A vector's, here."""
    threshold: float
    """Of the product of a row and a column, from which on they may be near."""

    def rows(self, block: Any) -> Any:
        """Returns the few numbers of each vector."""

    def columns(self, rows: Any) -> Any:
        """Returns rows as they are multiplied with others from the right; the array may be the same, changed."""


class Shares:
    """Exact: the product is the greatest that the cosine can be. `directions`: orthonormal, a column each."""

    def __init__(self, directions: Any, threshold: float) -> None:
        self._directions, self.threshold = directions, threshold - ROUNDING
        self.numbers = directions.shape[1] + 1

    def rows(self, block: Any) -> Any:
        """Returns each vector's shares, and the length of what is left as the last number."""
        import numpy

        rows = numpy.empty((len(block), self.numbers), "float32")
        shares = rows[:, :-1]
        numpy.matmul(block, self._directions, out=shares)
        left = numpy.einsum("ij,ij->i", block, block) - numpy.einsum("ij,ij->i", shares, shares)
        rows[:, -1] = numpy.sqrt(numpy.maximum(left, 0.0) + _LEFT_ROUNDING)
        return rows

    def columns(self, rows: Any) -> Any:
        """Returns the rows."""
        return rows


class Sketches:
    """Estimated: the product is minus half of the squared distance along the directions, of which the first are
    `principal`, the others `random` (orthonormal, at right angles to those) and stand for all that is left."""

    def __init__(self, principal: Any, random: Any, middle: Any, threshold: float) -> None:
        import numpy

        (dimensions, some), width = principal.shape, random.shape[1]
        scale = ((dimensions - some) / (width * stretch(width))) ** 0.5
        self._directions = numpy.concatenate([principal, random * numpy.float32(scale)], axis=1)
        self._middle = middle @ self._directions
        self.threshold = threshold - 1.0 - _LEFT_ROUNDING
        self.numbers = some + width + 2

    def rows(self, block: Any) -> Any:
        """Returns each vector's place along the directions, then minus half of its square, then 1."""
        import numpy

        rows = numpy.empty((len(block), self.numbers), "float32")
        places = rows[:, :-2]
        numpy.matmul(block, self._directions, out=places)
        places -= self._middle  # squares of what all have in common would swallow the differences
        rows[:, -2] = -0.5 * numpy.einsum("ij,ij->i", places, places)
        rows[:, -1] = 1.0
        return rows

    def columns(self, rows: Any) -> Any:
        """Returns the rows with the last two numbers exchanged."""
        rows[:, -2], rows[:, -1] = rows[:, -1].copy(), rows[:, -2].copy()
        return rows


def find_bound(sample: Any, threshold: float, widest: int, *, exact: bool) -> Bound | None:
    """Returns what makes it cheapest to tell which cosines are below the threshold, with at most so many directions;
    None where multiplying all numbers does. `sample` has a vector of length 1 a row."""
    # Directions say more of the vectors that they were found on than of others: judged is by others.
    learned, sample = sample[::2], sample[1::2]
    near = sample @ sample.T >= threshold
    dimensions = sample.shape[1]
    wide = min(widest, WIDTHS[-1], dimensions - 1)

    def judged(bound: Bound) -> Judged:
        rows = bound.rows(sample)
        maybe = rows @ bound.columns(rows.copy()).T >= bound.threshold
        return Judged(bound.numbers, float((maybe & ~near).mean()))

    principal, widths = _principal(learned, wide), [width for width in WIDTHS if width <= wide]
    shares = [Shares(principal[:, :width].copy(), threshold) for width in widths if exact or width <= EXACT_WIDTH]
    best = cheapest([judged(each) for each in shares], dimensions)
    if best is not None or exact:
        return None if best is None else shares[best]
    middle = learned.mean(axis=0)
    sketches = []
    for some in (0, *PRINCIPAL_BESIDE):
        random = _random(principal[:, :some], max(wide - some, 0))
        fitting = [width for width in widths if some + width <= wide]
        sketches += [Sketches(principal[:, :some], random[:, :width], middle, threshold) for width in fitting]
    best = cheapest([judged(each) for each in sketches], dimensions)
    return None if best is None else sketches[best]


def _principal(learned: Any, count: int) -> Any:
    """Returns so many principal directions, the first ones first; of long vectors those of their first numbers."""
    import numpy

    dimensions = learned.shape[1]
    seen = min(dimensions, PRINCIPAL_DIMENSIONS)
    _, columns = numpy.linalg.eigh(learned[:, :seen].T @ learned[:, :seen])
    directions = numpy.zeros((dimensions, count), "float32")
    directions[:seen] = columns[:, ::-1][:, :count]
    return directions


def _random(principal: Any, count: int) -> Any:
    """Returns so many orthonormal directions at right angles to the principal ones, always the same ones."""
    import numpy

    dimensions = len(principal)
    signs = numpy.frombuffer(Random(dimensions).randbytes(dimensions * count), "uint8") & 1
    directions = signs.reshape(dimensions, count).astype("float32") - 0.5
    columns, _ = numpy.linalg.qr(directions - principal @ (principal.T @ directions))
    return columns
