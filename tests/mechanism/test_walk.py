"""Walking, naming and reading lists, on real directories."""

import os
from pathlib import Path

import pytest

from protocol.errors import UsageError
from protocol.paths import from_token, to_token
from supervisor import walk as walk_module
from supervisor.cli.sources import check_output, listed_names, read_sources
from supervisor.naming import Directory, Files, Listing, absolute, may_clash
from supervisor.walk import Walk, has_image_name, is_image_head

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 20


def put(root: Path, *names: str, content: bytes = JPEG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def walk(root: Path, *skip: Path) -> tuple[list[str], Walk]:
    made = Walk(os.fsencode(root), frozenset(os.fsencode(os.path.realpath(path)) for path in skip), lambda text: None)
    return list(made), made


# ---- walking -------------------------------------------------------------------------------------


def test_images_by_name_or_first_bytes_the_rest_is_ignored(tmp_path: Path) -> None:
    put(tmp_path, "b.JPG", "a.png", "no_extension", "sub/c.webp", "sub/deep/d.tiff", "letter.doc")
    put(tmp_path, "notes.txt", "sub/empty", content=b"")
    names, made = walk(tmp_path)
    assert names == ["a.png", "b.JPG", "letter.doc", "no_extension", "sub/c.webp", "sub/deep/d.tiff"]
    assert made.ignored == 2


def test_an_image_by_name_is_an_item_whatever_is_in_it(tmp_path: Path) -> None:
    put(tmp_path, "empty.jpg", content=b"")
    assert walk(tmp_path)[0] == ["empty.jpg"]


def test_hidden_files_links_and_pipes_are_ignored(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", ".hidden.jpg", ".cache/x.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    names, made = walk(tmp_path)
    assert names == ["a.jpg"]
    assert made.ignored == 4  # what is in a hidden directory is not looked at


def test_a_named_link_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert walk(tmp_path / "link")[0] == ["a.jpg"]


def test_the_output_inside_the_input_is_skipped_even_when_it_appears_later(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.jpg", "thumbs_of_mine/b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    made = Walk(os.fsencode(tmp_path / "link"), frozenset([os.fsencode(tmp_path / "in" / "out")]), lambda text: None)
    names = iter(made)
    found = [next(names)]
    put(tmp_path / "in", "out/a.jpg.256.webp")
    assert found + list(names) == ["a.jpg", "thumbs_of_mine/b.jpg"]


def test_names_that_are_not_utf8_or_hold_newlines(tmp_path: Path) -> None:
    raw = [b"new\nline.jpg", b"caf\xe9.jpg", b"\xff\xfe/x.jpg", "ünï.jpg".encode()]
    for name in raw:
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(JPEG)
    names, _ = walk(tmp_path)
    assert sorted(map(from_token, names)) == sorted(raw)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_told_and_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    said: list[str] = []
    made = Walk(os.fsencode(tmp_path), frozenset(), said.append)
    assert list(made) == ["a.jpg"]
    (tmp_path / "locked").chmod(0o700)
    assert made.unreadable == 1
    assert "locked" in said[0]


def test_a_directory_that_vanishes_on_the_way_is_told_and_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "gone/b.jpg", "here/c.jpg")
    said: list[str] = []
    made = Walk(os.fsencode(tmp_path), frozenset(), said.append)
    names = iter(made)
    found = [next(names)]
    (tmp_path / "gone" / "b.jpg").unlink()
    (tmp_path / "gone").rmdir()
    assert found + list(names) == ["a.jpg", "here/c.jpg"]
    assert made.unreadable == 1
    assert str(tmp_path / "gone") in said[0]


def test_a_large_directory_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "BLOCK_ENTRIES", 3)
    put(tmp_path, *(f"{n}.jpg" for n in range(10)))
    names, _ = walk(tmp_path)
    assert sorted(names) == [f"{n}.jpg" for n in range(10)]
    assert all(names[n : n + 3] == sorted(names[n : n + 3]) for n in range(0, 10, 3))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n....", True),
        (b"RIFF\0\0\0\0WEBP", True),
        (b"RIFF\0\0\0\0WAVE", False),
        (b"\0\0\0\x18ftypheic", True),
        (b"\0\0\0\x18ftypisom", False),
        (b"BM\x36\0\0\0\0\0\0\0", True),
        (b"BMW is a car", False),
        (b"", False),
    ],
)
def test_first_bytes(head: bytes, expected: bool) -> None:
    assert is_image_head(head) is expected


def test_extensions() -> None:
    assert has_image_name(b"X.JpEg")
    assert not has_image_name(b"jpg.txt")
    assert not has_image_name(b"readme")


# ---- naming --------------------------------------------------------------------------------------


def test_one_directory_and_several(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert read_sources([a], None, False) == [Directory(os.fsencode(a))]
    assert read_sources([a, b], None, False) == [Directory(os.fsencode(a), b"a"), Directory(os.fsencode(b), b"b")]
    assert read_sources([a, a], None, False) == [Directory(os.fsencode(a))]


def test_single_files_are_named_by_base_or_by_their_absolute_path(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg")
    file = str(tmp_path / "a" / "1.jpg")
    assert read_sources([file], None, False) == [Files(b"/", (os.fsencode(file)[1:],))]
    assert read_sources([file], str(tmp_path), False) == [Files(os.fsencode(tmp_path), (b"a/1.jpg",))]


def test_a_file_outside_the_base_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    with pytest.raises(UsageError, match=r"2\.jpg is not below --base"):
        read_sources([str(tmp_path / "b" / "2.jpg")], str(tmp_path / "a"), False)


def test_a_directory_inside_the_base_is_named_relative_to_it(tmp_path: Path) -> None:
    put(tmp_path, "x/photos/1.jpg", "y/photos/1.jpg")
    x, y = str(tmp_path / "x/photos"), str(tmp_path / "y/photos")
    found = read_sources([x, y], str(tmp_path), False)
    assert [s.prefix for s in found if isinstance(s, Directory)] == [b"x/photos", b"y/photos"]
    assert not may_clash(found)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    with pytest.raises(UsageError, match="nowhere"):
        read_sources([str(tmp_path), str(tmp_path / "nowhere")], None, False)
    with pytest.raises(UsageError, match="the list cannot be read"):
        read_sources([f"@{tmp_path}/nowhere.txt"], None, False)


def test_dots_are_resolved_where_the_file_system_says(tmp_path: Path) -> None:
    put(tmp_path, "real/sub/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "sub")
    current = os.fsencode(tmp_path)
    assert absolute(b"./real//sub/", current) == current + b"/real/sub"
    assert absolute(b"link/..", current) == current + b"/real"
    assert absolute(b"link/../sub/a.jpg", current) == current + b"/real/sub/a.jpg"
    assert absolute(b"//etc", current) == b"/etc"


A, B = Directory(b"/x/a", b"a"), Directory(b"/x/b", b"b")


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([A], False),
        ([A, B], False),
        ([A, Directory(b"/y/a", b"a")], True),
        ([A, Directory(b"/y/a/c", b"a/c")], True),
        ([A, Directory(b"/y", b"")], True),
        ([Files(b"/", (b"x/1.jpg", b"y/1.jpg"))], False),
        ([A, Files(b"/", (b"home/1.jpg",))], False),
        ([A, Files(b"/base", (b"a/1.jpg",))], True),
        ([Directory(b"/x"), Files(b"/base", (b"1.jpg",))], True),
        ([Listing("-", b"/", False)], False),
        ([Listing("-", b"/", False), A], True),
        ([Listing("-", b"/", False), Files(b"/", (b"a",))], False),
    ],
)
def test_clashes_that_are_possible(sources: list[Directory | Files | Listing], expected: bool) -> None:
    assert may_clash(sources) is expected


def test_the_output_may_not_be_the_input(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    sources = read_sources([str(tmp_path)], None, False)
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(UsageError, match="is the input directory itself"):
            check_output(sources, os.fsencode(out))
    with pytest.raises(UsageError, match="is no directory"):
        check_output(sources, os.fsencode(tmp_path / "a.jpg"))
    check_output(sources, os.fsencode(tmp_path / "out"))


# ---- lists ---------------------------------------------------------------------------------------


def listed(tmp_path: Path, content: bytes, *, nul: bool = False, root: bytes = b"/") -> list[bytes]:
    (tmp_path / "list").write_bytes(content)
    return [from_token(token) for token in listed_names(Listing(str(tmp_path / "list"), root, nul))]


def test_lists_by_line_and_by_nul(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(os.getcwd())[1:]
    assert listed(tmp_path, b"/a.jpg\n\nb c.jpg\r\n/caf\xe9.jpg") == [b"a.jpg", here + b"/b c.jpg", b"caf\xe9.jpg"]
    assert listed(tmp_path, b"/a\nb.jpg\0/c.jpg\0", nul=True) == [b"a\nb.jpg", b"c.jpg"]


def test_a_long_list_is_read_in_pieces(tmp_path: Path) -> None:
    names = [b"/photos/%06d.jpg" % n for n in range(20_000)]
    assert listed(tmp_path, b"\n".join(names)) == [name[1:] for name in names]


def test_bad_lists_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 2: a NUL byte; say -0"):
        listed(tmp_path, b"/a.jpg\n/b.jpg\0/c.jpg\n")
    with pytest.raises(UsageError, match=r"line 1: .*/a\.jpg is not below --base"):
        listed(tmp_path, b"/a.jpg\n", root=b"/base")
    with pytest.raises(UsageError, match="no file name"):
        listed(tmp_path, b"x" * 200_000)


def test_tokens_survive_the_way_through_a_list(tmp_path: Path) -> None:
    raw = b"/\xff/\xfe.jpg"
    assert to_token(listed(tmp_path, raw)[0]) == to_token(raw[1:])
