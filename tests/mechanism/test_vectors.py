"""Vectors on the disk: what was added is there, whole, after any death; groups are those of all pairs."""

import os
import random
import struct
from importlib.util import find_spec
from pathlib import Path

import pytest

from supervisor.mechanism.vectors import Entry, Shelf, VectorStore, farthest, group_vectors
from supervisor.policy.alike import Groups

needs_numpy = pytest.mark.skipif(find_spec("numpy") is None, reason="not installed: numpy (the extra 'embed')")
MODEL = "0123456789abcdef"


def vector(*numbers: float) -> bytes:
    """Returns the numbers as float16."""
    return struct.pack(f"<{len(numbers)}e", *numbers)


def test_rows_and_names_are_read_back_and_newer_ones_replace_older_ones(tmp_path: Path) -> None:
    store = VectorStore(os.fspath(tmp_path), MODEL, 3)
    assert store.entries() == [] and store.newest() == {}
    store.add([Entry("/a\nb", 4, 3), Entry("/b")], [vector(1, 0, 0), vector(0, 1, 0)])
    store.add([Entry("/b", 8, 6)], [vector(0, 0, 1)])
    again = VectorStore(os.fspath(tmp_path), MODEL, 3)
    seen = [again.loaded]
    assert again.newest() == {"/a\nb": 0, "/b": 2} and again.entries()[2] == Entry("/b", 8, 6)
    seen.append(again.loaded)
    again.drop()
    assert [*seen, again.loaded] == [False, True, False] and again.newest()["/b"] == 2
    with pytest.raises(ValueError, match="wrong length"):
        again.add([Entry("/c")], [vector(1, 2)])
    with pytest.raises(ValueError, match="1 to 8192"):
        VectorStore(os.fspath(tmp_path), MODEL, 0)


@pytest.mark.parametrize("cut", range(0, 60, 7))
@pytest.mark.parametrize("which", ["rows", "names"])
def test_a_file_cut_anywhere_keeps_its_whole_rows_and_takes_new_ones(tmp_path: Path, which: str, cut: int) -> None:
    store = VectorStore(os.fspath(tmp_path), MODEL, 2)
    store.add([Entry(f"/{n}") for n in range(5)], [vector(n, 1) for n in range(5)])
    (names,) = [path for path in tmp_path.iterdir() if path.suffix == ".names"]
    path = names if which == "names" else names.with_suffix("")
    os.truncate(path, min(cut, path.stat().st_size))
    store = VectorStore(os.fspath(tmp_path), MODEL, 2)
    kept = [entry.path for entry in store.entries()]
    assert kept == [f"/{n}" for n in range(len(kept))] and len(kept) <= 5
    store.add([Entry("/new")], [vector(9, 9)])
    again = VectorStore(os.fspath(tmp_path), MODEL, 2)
    assert [entry.path for entry in again.entries()] == [*kept, "/new"]
    assert names.with_suffix("").read_bytes() == b"".join(vector(n, 1) for n in range(len(kept))) + vector(9, 9)


def test_the_shelf_keeps_models_apart_and_passes_over_what_is_no_vector(tmp_path: Path) -> None:
    other = MODEL[::-1]
    with Shelf(os.fspath(tmp_path)) as shelf:
        assert shelf.read_up_to == 0
        added = shelf.add(
            [
                (MODEL, Entry("/a"), vector(1, 0)),
                (other, Entry("/a"), vector(1, 0)),
                (MODEL, Entry("/b"), vector(1, 0, 0)),
                ("../../evil", Entry("/c"), vector(1)),
                (MODEL, Entry("/d"), b""),
                (MODEL, Entry("/e"), b"odd"),
            ]
        )
        assert added == 3
        shelf.finish(41)
    with Shelf(os.fspath(tmp_path)) as shelf:
        assert shelf.read_up_to == 41 and sorted(len(store.entries()) for store in shelf.stores) == [1, 1, 1]
        shelf.clear()
        assert shelf.read_up_to == 0 and shelf.stores == []
    assert not [name for name in os.listdir(tmp_path / "vectors") if name.startswith((MODEL, other))]


@needs_numpy
def test_each_kind_is_read_by_itself(tmp_path: Path) -> None:
    with Shelf(os.fspath(tmp_path)) as shelf:
        shelf.add([(MODEL, Entry("/a"), vector(1, 0.5))])
        shelf.finish(41)
    with Shelf(os.fspath(tmp_path), "int8") as shelf:
        assert (shelf.read_up_to, shelf.stores) == (0, [])
        shelf.add([(MODEL, Entry("/a"), vector(1, 0.5))])
        shelf.finish(41)
        assert shelf.stores[0].matrix().tolist() == [[127, 64]]
    with Shelf(os.fspath(tmp_path)) as shelf:
        assert (shelf.read_up_to, shelf.stores[0].kind) == (41, "float16")


@needs_numpy
def test_replaced_rows_are_written_anew_when_they_are_most(tmp_path: Path) -> None:
    store = VectorStore(os.fspath(tmp_path), MODEL, 2)
    for number in range(3):
        store.add([Entry("/a"), Entry("/b")], [vector(number, 1), vector(1, number)])
    assert store.compact() and not store.compact()
    assert [entry.path for entry in store.entries()] == ["/a", "/b"]
    assert store.matrix().tolist() == [[2, 1], [1, 2]]


@needs_numpy
@pytest.mark.parametrize("limit", [0.02, 0.05, 0.3])
def test_groups_by_bounds_are_those_of_whole_vectors(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few directions of many, which is what large galleries are searched by."""
    import numpy

    from supervisor.mechanism.vectors import search
    from supervisor.mechanism.vectors.bounds import Shares, find_bound

    monkeypatch.setattr(search, "SAMPLE_ROWS", 512)
    chance = numpy.random.default_rng(3)
    rows = chance.standard_normal((1500, 96)) * (1 / numpy.arange(1, 97) ** 0.5)
    rows[1000:] = rows[chance.integers(0, 1000, 500)] + chance.standard_normal((500, 96)) * 0.05
    rows[700] = 0
    matrix = rows.astype("float16")
    unit = matrix.astype("float64")
    unit /= numpy.maximum(numpy.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    expected = Groups(1500)
    for one, other in numpy.argwhere(numpy.triu(unit @ unit.T, 1) >= 1 - limit).tolist():
        expected.unite(one, other)
    unit32 = unit.astype("float32")
    bound = find_bound(unit32[::2], 1 - limit, 256, exact=True)
    assert limit > 0.1 or isinstance(bound, Shares), "bounds are what is tried here"
    assert group_vectors(matrix, range(1500), limit, exact=True) == expected.several()


@needs_numpy
@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_groups_are_those_of_all_pairs(tmp_path: Path, kind: str) -> None:
    source = random.Random(5)
    centres = [[source.gauss(0, 1) for _ in range(16)] for _ in range(40)]
    rows = [[each + source.gauss(0, 0.12) for each in source.choice(centres)] for _ in range(300)]
    rows += rows[:20]
    store = VectorStore(os.fspath(tmp_path), MODEL, 16, "int8" if kind == "int8" else "float16")
    store.add([Entry(f"/{n}") for n in range(len(rows))], [vector(*row) for row in rows])
    matrix = store.matrix()
    chosen = list(range(5, len(rows)))
    expected = Groups(len(chosen))
    numbers = matrix.astype("float64")
    for one in range(len(chosen)):
        for other in range(one):
            a, b = numbers[chosen[one]], numbers[chosen[other]]
            if 1 - (a @ b) / ((a @ a) * (b @ b)) ** 0.5 <= 0.03:
                expected.unite(one, other)
    found = group_vectors(matrix, chosen, 0.03)
    assert found == expected.several() and len(found) > 10
    assert farthest(matrix, 5, [305, 7]) > 0.001 and farthest(matrix, 5, [305]) == pytest.approx(0, abs=1e-5)
