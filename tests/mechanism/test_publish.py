"""Outputs: complete or absent, under their names, never over what is not ours."""

import errno
import os
from pathlib import Path

import pytest

from tests.mechanism.performing import Notes
from workers import publish
from workers.errors import MachineTrouble, Verdict
from workers.publish import Publisher


def publisher(out: Path, stem: str = "beach/p1.jpg", *, replace: bool = False, notes: Notes | None = None) -> Publisher:
    """Returns a publisher below `out`."""
    return Publisher(os.fsencode(out), stem, "0badcafe", notes or Notes(), replace=replace)


def names(directory: Path) -> list[str]:
    """Returns what is in a directory, hidden files too."""
    return sorted(os.listdir(directory))


def test_an_output_is_announced_written_and_renamed(tmp_path: Path) -> None:
    notes = Notes()
    one = publisher(tmp_path / "out", notes=notes)
    final = one.publish("256", "webp", b"pixels")
    assert final == os.fsencode(tmp_path / "out/beach/p1.jpg.256.webp")
    assert (tmp_path / "out/beach/p1.jpg.256.webp").read_bytes() == b"pixels"
    assert one.written == [str(tmp_path / "out/beach/p1.jpg.256.webp")]
    assert names(tmp_path / "out/beach") == ["p1.jpg.256.webp"]
    assert notes.partials[1:] == [b""]
    assert (
        os.path.basename(notes.partials[0]).startswith(b".gs-0badcafe-")
        and len(os.path.basename(notes.partials[0])) == 29
    )


def test_the_umask_is_honoured(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        final = publisher(tmp_path / "out").publish("256", "webp", b"x")
    finally:
        os.umask(before)
    assert os.stat(final).st_mode & 0o777 == 0o640
    assert os.stat(tmp_path / "out/beach").st_mode & 0o777 == 0o750


def test_a_foreign_file_is_not_replaced_without_leave(tmp_path: Path) -> None:
    target = tmp_path / "p.jpg.256.webp"
    target.write_bytes(b"mine")
    with pytest.raises(Verdict, match=r"p.jpg.256.webp exists and was not made by this supervisor; use --overwrite"):
        publisher(tmp_path, "p.jpg").publish("256", "webp", b"theirs")
    assert target.read_bytes() == b"mine" and names(tmp_path) == ["p.jpg.256.webp"]
    publisher(tmp_path, "p.jpg", replace=True).publish("256", "webp", b"ours")
    assert target.read_bytes() == b"ours"


def test_identical_bytes_are_left_alone_and_count(tmp_path: Path) -> None:
    target = tmp_path / "p.jpg.256.webp"
    target.write_bytes(b"same")
    before = target.stat().st_ino
    again = publisher(tmp_path, "p.jpg")
    again.publish("256", "webp", b"same")
    assert again.written == [str(target)] and target.stat().st_ino == before and names(tmp_path) == [target.name]


@pytest.mark.parametrize("leads_to", ["there", "nowhere"])
def test_a_symlink_is_never_followed(tmp_path: Path, leads_to: str) -> None:
    (tmp_path / "there").write_bytes(b"content")
    target = tmp_path / "p.jpg.256.webp"
    target.symlink_to(tmp_path / leads_to)
    with pytest.raises(Verdict, match="exists"):
        publisher(tmp_path, "p.jpg").publish("256", "webp", b"content")
    publisher(tmp_path, "p.jpg", replace=True).publish("256", "webp", b"new")
    assert not target.is_symlink() and target.read_bytes() == b"new"
    assert (tmp_path / "there").read_bytes() == b"content" and not (tmp_path / "nowhere").exists()


def test_a_planted_symlink_under_the_unfinished_name_is_not_followed(tmp_path: Path) -> None:
    notes = Notes()
    publisher(tmp_path, "p.jpg", notes=notes).publish("256", "webp", b"1")
    (tmp_path / "victim").write_bytes(b"precious")
    os.symlink(tmp_path / "victim", notes.partials[0])
    publisher(tmp_path, "p.jpg", replace=True).publish("256", "webp", b"2")
    assert (tmp_path / "victim").read_bytes() == b"precious" and (tmp_path / "p.jpg.256.webp").read_bytes() == b"2"


@pytest.mark.parametrize("replace", [False, True])
def test_a_directory_at_the_name(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "p.jpg.256.webp").mkdir()
    with pytest.raises(Verdict, match="is a directory"):
        publisher(tmp_path, "p.jpg", replace=replace).publish("256", "webp", b"x")
    assert names(tmp_path) == ["p.jpg.256.webp"]


def test_a_file_where_a_directory_is_needed(tmp_path: Path) -> None:
    (tmp_path / "beach").write_bytes(b"")
    with pytest.raises(Verdict, match="a file stands where a directory is needed"):
        publisher(tmp_path).publish("256", "webp", b"x")


@pytest.mark.parametrize("stem", ["../p.jpg", "a/../../p.jpg", "/etc/p.jpg", "", "a//b", "./p.jpg", "a\0b"])
def test_nothing_outside_the_output_directory(tmp_path: Path, stem: str) -> None:
    with pytest.raises(Verdict, match="leads outside"):
        publisher(tmp_path, stem)


def test_a_name_that_is_too_long_says_its_figures(tmp_path: Path) -> None:
    with pytest.raises(Verdict, match="its name has 259 bytes") as caught:
        publisher(tmp_path, "n" * 250).publish("256", "webp"[:4], b"x")
    assert caught.value.kind == "io" and names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
def test_the_machines_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(MachineTrouble, match="p1.jpg.256.webp cannot be written: " + os.strerror(number)):
        publisher(tmp_path).publish("256", "webp", b"x")
    assert names(tmp_path / "beach") == []


def test_a_left_over_of_an_earlier_attempt_is_replaced_not_reused(tmp_path: Path) -> None:
    notes = Notes()
    publisher(tmp_path, "p.jpg", notes=notes).publish("256", "webp", b"first")
    Path(os.fsdecode(notes.partials[0])).write_bytes(b"half an out")
    with open(notes.partials[0], "r+b") as held:
        publisher(tmp_path, "p.jpg", replace=True).publish("256", "webp", b"second")
        held.write(b"late write of a dead worker")
    assert (tmp_path / "p.jpg.256.webp").read_bytes() == b"second"


@pytest.mark.parametrize("links", [True, False])
def test_without_renameat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    monkeypatch.setattr(publish, "_renameat2", None)
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    publisher(tmp_path, "p.jpg").publish("256", "webp", b"one")
    with pytest.raises(Verdict, match="exists"):
        publisher(tmp_path, "p.jpg").publish("256", "webp", b"two")
    assert (tmp_path / "p.jpg.256.webp").read_bytes() == b"one" and names(tmp_path) == ["p.jpg.256.webp"]
