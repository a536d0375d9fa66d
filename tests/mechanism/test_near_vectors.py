"""Near vectors: nearly all that comparing all pairs finds and nothing else, on galleries of every shape, in bounds."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from protocol.errors import MachineError
from supervisor.mechanism.vectors import farthest, group_vectors
from supervisor.policy.near_vectors import least_bytes

pytestmark = pytest.mark.skipif(find_spec("numpy") is None, reason="not installed: numpy (the extra 'embed')")
COUNT, DIMENSIONS = 3000, 256


def unit(rows: Any) -> Any:
    """Returns the rows scaled to length 1."""
    import numpy

    return rows / numpy.maximum(numpy.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def with_copies(chance: Any, base: Any, amount: float) -> Any:
    """Returns the vectors and as many copies of some, each with noise of up to so much of its length, shuffled."""
    source = base[chance.integers(0, len(base), len(base))]
    noise = chance.standard_normal(source.shape) / source.shape[1] ** 0.5 * amount
    return chance.permutation(unit(_joined(base, source + noise * chance.random((len(source), 1)))))


def _joined(*parts: Any) -> Any:
    import numpy

    return numpy.concatenate(parts)


def _isotropic(chance: Any) -> Any:
    return with_copies(chance, unit(chance.standard_normal((COUNT // 2, DIMENSIONS))), 0.45)


def _few_dimensions(chance: Any) -> Any:
    made = chance.standard_normal((COUNT // 2, 12)) @ chance.standard_normal((12, DIMENSIONS))
    return with_copies(chance, unit(made), 0.45)


def _narrow_cone(chance: Any) -> Any:
    """Cosines of unrelated ones are about 0.8, and most of their differences are in some numbers."""
    import numpy

    spread = 1 / numpy.arange(1, DIMENSIONS + 1) ** 0.5
    made = chance.standard_normal((COUNT // 2, DIMENSIONS)) * spread / numpy.linalg.norm(spread)
    return with_copies(chance, unit(made + 2 * unit(chance.standard_normal((1, DIMENSIONS)))), 0.4)


def _even_cone(chance: Any) -> Any:
    """The same, but differences are in all numbers alike: no few of them say most."""
    made = chance.standard_normal((COUNT // 2, DIMENSIONS)) / DIMENSIONS**0.5
    return with_copies(chance, unit(made + 2 * unit(chance.standard_normal((1, DIMENSIONS)))), 0.4)


def _clusters(chance: Any) -> Any:
    """Of very different sizes, the largest has a third of all."""
    import numpy

    centres = unit(chance.standard_normal((500, DIMENSIONS)))
    chosen = centres[numpy.minimum(chance.zipf(1.4, COUNT), 500) - 1]
    noise = chance.standard_normal(chosen.shape) / DIMENSIONS**0.5
    return unit(chosen + 0.3 * chance.random((COUNT, 1)) * noise)


GALLERIES = {
    "isotropic": _isotropic,
    "few dimensions": _few_dimensions,
    "narrow cone": _narrow_cone,
    "even cone": _even_cone,
    "clusters": _clusters,
}


def all_pairs(matrix: Any) -> Any:
    """Returns the cosines of all pairs, in float64."""
    made = unit(matrix.astype("float64"))
    return made @ made.T


def labels_of(groups: list[list[int]], count: int) -> Any:
    """Returns a label for each place, the same for those of a group."""
    import numpy

    labels = numpy.arange(count)
    for group in groups:
        labels[group] = group[0]
    return labels


@pytest.mark.parametrize("kind", GALLERIES)
@pytest.mark.parametrize("limit", [0.02, 0.1])
def test_nearly_all_near_pairs_are_found_and_no_others(kind: str, limit: float) -> None:
    import numpy

    make: Callable[[Any], Any] = GALLERIES[kind]
    matrix = make(numpy.random.default_rng(11)).astype("float16")
    cosines = all_pairs(matrix)
    near = numpy.argwhere(numpy.triu(cosines, 1) >= 1 - limit)
    groups = group_vectors(matrix, range(len(matrix)), limit)
    labels = labels_of(groups, len(matrix))
    assert len(near) > 100, "there is something to find"
    assert (labels[near[:, 0]] == labels[near[:, 1]]).mean() >= 0.99
    for group in groups:
        part = cosines[numpy.ix_(group, group)] - 2 * numpy.eye(len(group))
        assert (part.max(axis=1) >= 1 - limit - 2e-6).all(), "somebody is near nobody of its group"
    exact = labels_of(group_vectors(matrix, range(len(matrix)), limit, exact=True), len(matrix))
    sure = near[cosines[near[:, 0], near[:, 1]] > 1 - limit + 1e-6]
    assert (exact[sure[:, 0]] == exact[sure[:, 1]]).all(), "exact means all"


def test_sketches_miss_few_of_the_pairs_that_are_right_at_the_limit() -> None:
    import numpy

    from supervisor.mechanism.vectors.bounds import Sketches, find_bound

    chance = numpy.random.default_rng(4)
    sample = _even_cone(chance).astype("float32")
    bound = find_bound(sample, 0.95, 256, exact=False)
    assert isinstance(bound, Sketches), "no few directions say most here"
    one = sample[:2000].astype("float64")
    for kind in ("anywhere", "in one number"):
        away = chance.standard_normal(one.shape) if kind == "anywhere" else numpy.eye(DIMENSIONS)[[7] * len(one)]
        away = unit(away - (away * one).sum(axis=1, keepdims=True) * one)
        other = 0.9501 * one + (1 - 0.9501**2) ** 0.5 * away
        rows, columns = bound.rows(one.astype("float32")), bound.columns(bound.rows(other.astype("float32")))
        assert ((rows * columns).sum(axis=1) >= bound.threshold).mean() > 0.99, kind


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_limit_is_where_it_is_said_to_be(scale: float) -> None:
    import numpy

    for limit in (0.001, 0.05, 0.3):
        for off, near in ((-1e-4, True), (1e-4, False)):
            cosine = 1 - limit - off
            matrix = numpy.zeros((3, 8), "float64")
            matrix[0, 0], matrix[1, :2], matrix[2, 2] = scale, (cosine, (1 - cosine**2) ** 0.5), 1.0
            assert group_vectors(matrix, range(3), limit) == ([[0, 1]] if near else [])
            assert farthest(matrix, 0, [1]) == pytest.approx(1 - cosine, abs=1e-12)
    rows = numpy.asarray([[1, 2, 3], [2, 4, 6], [0, 0, 0], [0, 0, 0], [3, 2, 1]], "float16")
    assert group_vectors(rows, range(5), 0.0) == [[0, 1], [2, 3]]
    assert group_vectors(numpy.zeros((0, 3), "float16"), [], 0.05) == []


class Counted:
    """An array that counts how many of its rows are read."""

    def __init__(self, array: Any) -> None:
        self._array, self.shape, self.itemsize, self.read = array, array.shape, array.itemsize, 0

    def __getitem__(self, rows: Any) -> Any:
        self.read += len(rows)
        return self._array[rows]


@pytest.mark.parametrize("kind", ["equal", "nearly equal", "at the limit", "ten kinds", "one number apart"])
def test_thousands_alike_take_no_table_of_pairs(kind: str) -> None:
    import numpy

    chance, count = numpy.random.default_rng(5), 30_000
    noise = chance.standard_normal((count, 64), "float32") / 8
    kinds = unit(chance.standard_normal((10, 64)))
    away = {"nearly equal": 0.01, "at the limit": 0.2294, "ten kinds": 0.05}.get(kind, 0.0)
    rows = kinds[chance.integers(0, 10, count) if kind == "ten kinds" else [0] * count] + away * noise
    if kind == "one number apart":
        rows[:, 0] += numpy.arange(count) % 500 / 500
    matrix = Counted(rows.astype("float16"))
    groups = group_vectors(matrix, range(count), 0.05)
    assert len(groups) == (10 if kind == "ten kinds" else 1)
    assert max(map(len, groups)) >= count * (0.09 if kind == "ten kinds" else 0.99)
    assert matrix.read < 5 * count, "450 million pairs are read row by row"


def test_chains_are_one_group_though_their_ends_are_far_apart() -> None:
    import numpy

    turn = numpy.linspace(0, numpy.pi, 5000)
    circle = numpy.stack([numpy.cos(turn), numpy.sin(turn)] + [numpy.zeros(5000)] * 30, axis=1)
    assert group_vectors(circle, range(5000), 0.0001) == [list(range(5000))]
    gap = numpy.delete(circle, range(2000, 2200), axis=0)
    assert group_vectors(gap, range(4800), 0.0001) == [list(range(2000)), list(range(2000, 4800))]


def test_little_room_means_smaller_blocks_and_too_little_is_said() -> None:
    import numpy

    matrix = _clusters(numpy.random.default_rng(2)).astype("float16")
    plenty = group_vectors(matrix, range(COUNT), 0.05)
    least = least_bytes(COUNT, DIMENSIONS)
    assert group_vectors(matrix, range(COUNT), 0.05, headroom=lambda: least) == plenty
    with pytest.raises(MachineError, match=r"searching 3,000 vectors of 256 numbers takes .* or more, and .* are left"):
        group_vectors(matrix, range(COUNT), 0.05, headroom=lambda: least - 1)
    left = iter([1 << 30] * 3 + [8_000_000] * 2)
    with pytest.raises(MachineError, match=r"and 0.* of memory are left"):
        group_vectors(matrix, range(COUNT), 0.01, headroom=lambda: next(left, 0))
