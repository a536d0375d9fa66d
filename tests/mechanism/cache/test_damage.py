"""A damaged index is set aside and made anew, a damaged blob found and dropped, a full disk costs hits alone."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import StateDirectoryUnusable
from supervisor.mechanism.cache import blobs as blobs_module
from supervisor.mechanism.cache.offline import read_figures
from supervisor.mechanism.cache.upkeep import Rebuild, Sweep
from supervisor.mechanism.cache.verify import run, verifying
from tests.mechanism.cache.bed import LARGE, SMALL, Bed

PAGE = 4096


def rebuilt(bed: Bed) -> int:
    """Rebuilds if that is due; returns how many entries came back."""
    rebuild = Rebuild(bed.store)
    while rebuild.needed and rebuild.turn():
        pass
    bed.store.commit()
    return rebuild.restored


def outputs_gone(bed: Bed) -> None:
    for output in bed.out.iterdir():
        output.unlink()


def test_an_index_cut_at_any_page_is_set_aside_and_made_anew(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg", "b.jpg", "c.jpg")
    bed.filled("small.jpg", size_bytes=SMALL)
    bed.close()
    whole = (bed.cache / "cache.db").read_bytes()
    assert len(whole) % PAGE == 0
    for pages in range(len(whole) // PAGE):
        for cut in (pages * PAGE, pages * PAGE + 100):
            (bed.cache / "cache.db").write_bytes(whole[:cut])
            bed.said.clear()
            bed.open()
            assert cut < PAGE or "was damaged" in bed.said[0], f"cut at {cut}"
            assert rebuilt(bed) == 3, f"cut at {cut}: the large ones come back from their blobs"
            outputs_gone(bed)
            answers = bed.find("a.jpg", "b.jpg", "c.jpg")
            assert [later.wanted.id for later in answers.hash_later] == [0, 1, 2], "shortcuts are learned again"
            for later in answers.hash_later:
                content = (bed.images / later.wanted.stem).read_bytes()
                assert len(bed.finder.resolve(later, hashlib.sha256(content).digest()).hits) == 1
            assert bed.outputs() == bed.right("a.jpg") | bed.right("b.jpg") | bed.right("c.jpg")
            bed.store.commit()
            assert run(verifying(bed.store, repair=False)).sound
            bed.close()
    aside = [path for path in bed.cache.iterdir() if ".damaged-" in path.name]
    assert 1 <= len(aside) <= 6, "two are kept, with what belongs to them"


@pytest.mark.parametrize("junk", [b"not a database at all" * 500, b"SQLite format 3\0" + bytes(5000)])
def test_something_else_in_its_place_is_set_aside(tmp_path: Path, junk: bytes) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg")
    bed.close()
    (bed.cache / "cache.db").write_bytes(junk)
    bed.open()
    assert rebuilt(bed) == 1
    bed.close()


def test_an_index_of_another_program_or_schema_is_set_aside(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.close()
    with sqlite3.connect(bed.cache / "cache.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateDirectoryUnusable, match="sets it aside"):
        read_figures(str(bed.cache), 1)
    bed.open()
    assert "schema 99" in bed.said[0]
    bed.close()


def test_without_extended_attributes_the_description_lies_beside_the_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "ATTRIBUTE_LIMIT", 0)
    bed = Bed(tmp_path)
    bed.filled("a.jpg")
    assert sum(path.name.endswith(".about") for path in bed.blobs()) == 1
    bed.close()
    (bed.cache / "cache.db").unlink()
    bed.open()
    assert rebuilt(bed) == 1
    bed.store.cull(bed.store.index.walk(b"", 1)[0].key)
    bed.store.commit()
    assert bed.blobs() == [], "both go together"
    bed.close()


@pytest.mark.parametrize("how", ["gone", "cut", "altered", "a link", "a directory"])
def test_a_blob_that_is_not_what_it_was_is_a_miss_and_dropped(tmp_path: Path, how: str) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg")
    outputs_gone(bed)
    blob = bed.blobs()[0]
    content = blob.read_bytes()
    blob.unlink()
    if how == "cut":
        blob.write_bytes(content[:-1])
    elif how == "altered":
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "a link":
        (tmp_path / "secret").write_bytes(content)
        blob.symlink_to(tmp_path / "secret")
    elif how == "a directory":
        blob.mkdir()
    assert run(verifying(bed.store, repair=False)).damaged == 1
    answers = bed.find("a.jpg")
    assert (len(answers.hits), len(answers.misses)) == (0, 1)
    assert bed.outputs() == {}, "nothing of the item was delivered"
    assert bed.store.index.entries == 0 and bed.store.damaged_found == 1
    assert bed.blobs() == []
    assert bed.keep(bed.made("a.jpg")) == [True] and len(bed.find("a.jpg").hits) == 1, "made again"
    bed.close()


def test_verify_with_repair_drops_what_is_damaged_and_deletes_orphans(tmp_path: Path) -> None:
    bed = Bed(tmp_path, orphan_age_seconds=100.0)
    bed.filled("a.jpg", "b.jpg")
    bed.filled("small.jpg", size_bytes=SMALL)
    bed.blobs()[0].write_bytes(b"short")
    orphan = bed.blobs()[1].with_name("f" * 64 + "-" + "0" * 16 + "-0")
    orphan.write_bytes(b"left behind")
    young = bed.blobs()[1].with_name("e" * 64 + "-" + "0" * 16 + "-0")
    young.write_bytes(b"just being published")
    os.utime(orphan, (1, 1))
    found = run(verifying(bed.store, repair=False))
    assert (found.entries, found.blobs, found.damaged, found.orphans, found.repaired) == (3, 4, 1, 1, False)
    assert run(verifying(bed.store, repair=True)).repaired
    assert not orphan.exists() and young.exists()
    assert run(verifying(bed.store, repair=False)).sound
    bed.close()


def test_the_sweep_waits_for_orphans_to_be_old(tmp_path: Path) -> None:
    bed = Bed(tmp_path, orphan_age_seconds=100.0)
    bed.filled("a.jpg")
    directory = bed.blobs()[0].parent
    for name, age in (("." + "a" * 64 + ".123", 200), ("foreign", 200), ("b" * 64 + "-" + "0" * 16 + "-0", 1)):
        path = directory / name
        path.write_bytes(b"x")
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))
    sweep = Sweep(bed.store)
    while sweep.turn():
        bed.store.commit()
    assert sweep.orphans_removed == 2
    assert (directory / ("b" * 64 + "-" + "0" * 16 + "-0")).exists()
    bed.close()


def test_an_inline_value_that_was_altered_is_a_miss(tmp_path: Path) -> None:
    bed = Bed(tmp_path, memory_bytes=0)
    bed.filled("a.jpg", size_bytes=SMALL)
    outputs_gone(bed)
    bed.close()
    with sqlite3.connect(bed.cache / "cache.db") as connection:
        connection.execute("UPDATE inlines SET value = zeroblob(length(value))")
    connection.close()
    bed.open()
    assert len(bed.find("a.jpg").misses) == 1 and bed.outputs() == {}
    assert bed.store.index.entries == 0
    bed.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.decode(errors='replace').strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_under_the_cache_loses_no_item_and_keeps_what_it_has(tmp_path: Path, small_disk: Path) -> None:
    bed = Bed(tmp_path)
    bed.close()
    shutil.rmtree(bed.cache)
    bed.cache = small_disk / "cache"
    bed.open()
    assert rebuilt(bed) == 0
    bed.filled("a.jpg")
    refused = 0
    for number in range(80):
        name = f"{number}.jpg"
        bed.image(name)
        made = bed.made(name)
        try:
            bed.keep(made)
        except (OSError, sqlite3.Error):
            bed.store.roll_back()
            refused += 1
    assert refused > 10
    outputs_gone(bed)
    assert len(bed.finder.look_up(bed.wanted("a.jpg")).hits) == 1, "reading goes on"
    bed.store.roll_back()
    assert bed.outputs() == bed.right("a.jpg", LARGE)
    assert run(verifying(bed.store, repair=False)).damaged == 0
    bed.store.index.abandon()
    bed.deliverer.close()


def test_a_full_disk_under_the_outputs_is_a_miss_with_nothing_half_written(tmp_path: Path, small_disk: Path) -> None:
    bed = Bed(tmp_path)
    bed.out = small_disk / "out"
    bed.out.mkdir()
    bed.filled("a.jpg")
    outputs_gone(bed)
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    with open(ballast, "r+b") as file:
        file.truncate(ballast.stat().st_size - 20_000)
    assert len(bed.find("a.jpg").misses) == 1
    assert list(bed.out.iterdir()) == []
    ballast.unlink()
    assert len(bed.find("a.jpg").hits) == 1
    bed.close()
