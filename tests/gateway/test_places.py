"""No path leads out of the allowed roots: not by name, not by link, not by what lies in between."""

import os
from pathlib import Path

import pytest

from supervisor.gateway.places import Outside, Places


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`root` is allowed, and holds what must not be had by way of it."""
    (tmp_path / "root/below").mkdir(parents=True)
    (tmp_path / "root/below/a.jpg").write_bytes(b"mine")
    (tmp_path / "rootless").mkdir()
    (tmp_path / "rootless/secret").write_bytes(b"theirs")
    (tmp_path / "state/http/uploads").mkdir(parents=True)
    (tmp_path / "state/http/token").write_bytes(b"token")
    (tmp_path / "state/http/uploads/u").write_bytes(b"upload")
    (tmp_path / "root/link").symlink_to(tmp_path / "rootless/secret")
    (tmp_path / "root/door").symlink_to(tmp_path / "rootless")
    (tmp_path / "root/inner").symlink_to(tmp_path / "root/below/a.jpg")
    os.mkfifo(tmp_path / "root/pipe")
    return tmp_path


def places(tree: Path, *roots: str) -> Places:
    return Places([os.fsencode(tree / root) for root in roots or ("root",)], os.fsencode(tree / "state"))


def read(found: Places, path: Path | str) -> bytes:
    file = found.open(os.fsencode(path))
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


def test_a_file_below_a_root_is_opened_also_by_a_link_that_stays_inside(tree: Path) -> None:
    found = places(tree)
    assert read(found, tree / "root/below/a.jpg") == b"mine"
    assert read(found, tree / "root/below/../below/a.jpg") == b"mine"
    assert read(found, tree / "root/inner") == b"mine"


@pytest.mark.parametrize(
    "path",
    ["rootless/secret", "root/../rootless/secret", "root/link", "root/door/secret", "root/below/../../rootless/secret",
     "root", "root/below", "root/pipe"],
)  # fmt: skip
def test_what_is_elsewhere_or_no_file_is_refused(tree: Path, path: str) -> None:
    with pytest.raises(Outside):
        places(tree).open(os.fsencode(tree / path))


@pytest.mark.parametrize("path", [b"relative", b"", b"/a\0b", b"/" + b"x" * 5000])
def test_what_is_no_absolute_path_is_refused(tree: Path, path: bytes) -> None:
    with pytest.raises(Outside):
        places(tree).resolve(path)


def test_the_state_directory_is_private_save_for_a_root_inside_it(tree: Path) -> None:
    found = places(tree, "", "state/http/uploads")
    assert read(found, tree / "state/http/uploads/u") == b"upload"
    assert read(found, tree / "rootless/secret") == b"theirs"
    with pytest.raises(Outside):
        found.open(os.fsencode(tree / "state/http/token"))


def test_a_link_put_in_the_way_after_the_look_is_not_followed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = places(tree)
    real = os.fsencode(tree / "root/below/a.jpg")
    monkeypatch.setattr(found, "resolve", lambda path: path)  # the look was before the link came
    os.rename(tree / "root/below", tree / "root/was")
    (tree / "root/below").symlink_to(tree / "rootless")
    (tree / "rootless/a.jpg").write_bytes(b"theirs")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        found.open(real)
    assert read(found, tree / "root/was/a.jpg") == b"mine"


def test_no_root_allows_nothing(tree: Path) -> None:
    assert not Places([], b"/nowhere").allows(os.fsencode(tree / "root/below/a.jpg"))
