"""What may stand at an output's name, by accident or malice, and what becomes of it."""

import os
from pathlib import Path

import pytest

from protocol import faults
from supervisor.mechanism.cache import copying, delivering
from supervisor.mechanism.cache.places import output_stem
from tests.mechanism.cache.bed import SMALL, TOKEN, Bed


def ready(tmp_path: Path, size_bytes: int = SMALL) -> tuple[Bed, Path]:
    """A bed with one image cached and its outputs gone; returns it and the larger output's path."""
    bed = Bed(tmp_path)
    bed.filled("a.jpg", size_bytes=size_bytes)
    for output in bed.out.iterdir():
        output.unlink()
    return bed, bed.out / "a.jpg.1024.webp"


def test_a_foreign_file_is_left_alone_and_nothing_of_the_item_is_delivered(tmp_path: Path) -> None:
    bed, final = ready(tmp_path)
    final.write_bytes(b"somebody else's")
    assert len(bed.find("a.jpg").misses) == 1
    assert bed.outputs() == {final.name: b"somebody else's"}
    bed.close()


@pytest.mark.parametrize("owned", [False, True])
def test_what_may_be_replaced_is(tmp_path: Path, owned: bool) -> None:
    bed, final = ready(tmp_path)
    final.write_bytes(b"an older one")
    assert len(bed.find("a.jpg", owned=owned, overwrite=not owned).hits) == 1
    assert bed.outputs() == bed.right("a.jpg", SMALL)
    bed.close()


def test_exactly_the_same_file_is_as_good_as_ours(tmp_path: Path) -> None:
    bed, final = ready(tmp_path)
    final.write_bytes(bed.right("a.jpg", SMALL)[final.name])
    inode = final.stat().st_ino
    assert len(bed.find("a.jpg").hits) == 1
    assert final.stat().st_ino == inode and bed.outputs() == bed.right("a.jpg", SMALL)
    bed.close()


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_links_at_the_output_s_name_never_lead_the_writing_elsewhere(tmp_path: Path, replace: bool, hard: bool) -> None:
    bed, final = ready(tmp_path)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    if hard:
        os.link(victim, final)
    else:
        final.symlink_to(victim)
    answers = bed.find("a.jpg", overwrite=replace)
    assert victim.read_bytes() == b"precious"
    assert len(answers.hits) == replace
    if replace:
        assert not final.is_symlink() and final.read_bytes() == bed.right("a.jpg", SMALL)[final.name]
    bed.close()


def test_a_link_to_the_same_content_is_not_taken_for_an_output(tmp_path: Path) -> None:
    bed, final = ready(tmp_path)
    elsewhere = tmp_path / "same"
    elsewhere.write_bytes(bed.right("a.jpg", SMALL)[final.name])
    final.symlink_to(elsewhere)
    assert len(bed.find("a.jpg").misses) == 1
    bed.close()


@pytest.mark.parametrize("replace", [False, True])
def test_a_directory_at_the_output_s_name_is_left_for_the_worker_to_say(tmp_path: Path, replace: bool) -> None:
    bed, final = ready(tmp_path)
    final.mkdir()
    assert len(bed.find("a.jpg", overwrite=replace).misses) == 1
    assert final.is_dir() and [path.name for path in bed.out.iterdir() if path.name.startswith(".gs-")] == []
    bed.close()


def test_a_file_where_a_directory_is_needed_and_a_stem_that_leads_outside_are_misses(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("sub/a.jpg", size_bytes=SMALL)
    for output in (bed.out / "sub").iterdir():
        output.unlink()
    (bed.out / "sub").rmdir()
    assert len(bed.find("sub/a.jpg").hits) == 1, "directories are made"
    for output in (bed.out / "sub").iterdir():
        output.unlink()
    (bed.out / "sub").rmdir()
    (bed.out / "sub").write_bytes(b"in the way")
    assert len(bed.find("sub/a.jpg").misses) == 1
    bed.close()
    for stem in ("../a", "/etc/a", "a//b", "a/./b", "", "a\0b"):
        assert output_stem("/out", stem) is None
    assert output_stem(None, "a") is None and output_stem("/out", "a/b") == b"/out/a/b"


def test_an_output_placed_and_then_changed_by_somebody_is_not_taken_for_ours(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg", size_bytes=SMALL)
    final = bed.out / "a.jpg.1024.webp"
    final.write_bytes(b"retouched" * 10)
    assert len(bed.find("a.jpg").misses) == 1
    assert final.read_bytes() == b"retouched" * 10
    bed.close()


def test_the_umask_is_honoured(tmp_path: Path) -> None:
    bed, final = ready(tmp_path)
    before = os.umask(0o027)
    try:
        bed.find("a.jpg")
    finally:
        os.umask(before)
    assert final.stat().st_mode & 0o777 == 0o640
    bed.close()


def test_file_systems_without_nameless_files_get_a_dot_name_that_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed, final = ready(tmp_path)
    monkeypatch.delattr(os, "O_TMPFILE")
    seen: list[str] = []

    def look(point: str) -> None:
        if point == "deliver.written":
            seen.extend(path.name for path in bed.out.iterdir() if path.name.startswith("."))

    faults.call_at_points(look)
    try:
        assert len(bed.find("a.jpg").hits) == 1
    finally:
        faults.call_at_points(None)
    assert len(seen) == 2 and all(name.startswith(f".gs-{TOKEN}-") for name in seen)
    assert bed.outputs() == bed.right("a.jpg", SMALL)
    final.write_bytes(b"foreign")
    assert len(bed.find("a.jpg").misses) == 1 and final.read_bytes() == b"foreign"
    monkeypatch.setattr(delivering, "_renameat2", None)
    assert len(bed.find("a.jpg").misses) == 1 and final.read_bytes() == b"foreign"
    final.unlink()
    assert len(bed.find("a.jpg").hits) == 1 and bed.outputs() == bed.right("a.jpg", SMALL)
    bed.close()


def test_every_way_of_copying_copies_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "source").write_bytes(content)
    ways: list[str] = []
    for _ in range(2):
        cloner = copying.Cloner()
        source = os.open(tmp_path / "source", os.O_RDONLY)
        target = os.open(tmp_path / f"target{len(ways)}", os.O_RDWR | os.O_CREAT)
        ways.append(cloner.copy(source, target, len(content)))
        with pytest.raises(ValueError, match="bytes"):
            cloner.copy(source, os.open(tmp_path / f"other{len(ways)}", os.O_RDWR | os.O_CREAT), len(content) + 1)
        os.close(source)
        os.close(target)
        assert (tmp_path / f"target{len(ways) - 1}").read_bytes() == content
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    assert ways[-1] in ("copy", "reflink")
