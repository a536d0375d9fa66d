"""Files as people have them: odd names, links, foreign outputs, inputs that go or change, read-only disks."""

import os
import stat
from pathlib import Path

import pytest

from protocol.paths import to_token
from tests.end_to_end.bed import Bed, Ended, wait_for
from tests.galleries import small_jpeg, write

JPEG = small_jpeg(3)
ODD_NAMES = [
    b"with space.jpg", b"new\nline.jpg", b"-rf.jpg", b"--out.jpg", b"latin-\xe9\xff.jpg", "ünï-☃.jpg".encode(),
    b"quote'\".jpg", b"back\\slash.jpg", b"$(touch x).jpg", b"@list.jpg", b"tab\t.jpg", b"%s%n.jpg", b"~.jpg",
    b"n" * 240 + b".jpg", b"esc\x1b[31m.jpg",
]  # fmt: skip


def run(bed: Bed, *words: str | bytes) -> Ended:
    return bed.run("run", *words, "--json")


def results(bed: Bed, ended: Ended) -> dict[bytes, dict[str, object]]:
    """Returns the results of a run by the bytes of their path."""
    rows = bed.run("results", ended.last["batch"], "--jsonl").rows
    found = {}
    for row in rows:
        token = f"//base64:{row['path_b64']}" if "path_b64" in row else row["path"]
        found[os.fsencode(row["path"]) if "path_b64" not in row else _raw(token)] = row
    return found


def _raw(token: str) -> bytes:
    from protocol.paths import from_token

    return from_token(token)


def test_odd_names_are_walked_listed_processed_and_reported(bed: Bed) -> None:
    photos = os.fsencode(bed.photos)
    for name in ODD_NAMES:
        write(bed.photos, name, JPEG)
    write(bed.photos, b"sub \xff/deep\n.jpg", JPEG)
    ended = run(bed, photos, "--out", bed.out)
    assert ended.code == 0, ended.err
    assert ended.last["done"] == len(ODD_NAMES) + 1
    raw = [*ODD_NAMES, b"sub \xff/deep\n.jpg"]
    assert set(results(bed, ended)) == {os.path.join(photos, name) for name in raw}
    there = {os.fsencode(name) for name in bed.outputs()}
    assert there == {name + label for name in raw for label in (b".256.webp", b".1024.webp")}
    assert "\x1b[31m" not in bed.run("results", ended.last["batch"]).out


def test_odd_names_can_be_named_one_by_one_and_in_lists(bed: Bed) -> None:
    paths = [write(bed.photos, name, JPEG) for name in ODD_NAMES]
    ended = run(bed, *paths, "--base", bed.photos, "--out", bed.out, "--recipe", "probe")
    assert ended.code == 0, ended.err
    assert ended.last["done"] == len(paths)
    listing = os.path.join(bed.directory, "list")
    with open(listing, "wb") as file:
        file.write(b"\0".join(paths))
    ended = run(bed, "@" + listing, "-0", "--out", bed.out, "--recipe", "probe")
    assert ended.code == 0 and ended.last["done"] == len(paths), ended.err


def test_name_of_250_bytes_whose_output_would_be_too_long_fails_with_the_figures(bed: Bed) -> None:
    long = write(bed.photos, b"x" * 246 + b".jpg", JPEG)
    bed.fill(2)
    ended = run(bed, bed.photos, "--out", bed.out)
    assert ended.code == 1 and (ended.last["done"], ended.last["failed"]) == (2, 1), ended.err
    verdict = results(bed, ended)[long]
    assert isinstance(verdict["error"], dict)
    assert verdict["error"]["kind"] == "io" and "255" in verdict["error"]["message"]
    assert not [name for name in bed.outputs() if ".gs-" in name]


def test_named_link_is_followed_one_inside_a_directory_is_not(bed: Bed) -> None:
    outside = write(os.path.join(bed.directory, "elsewhere"), "real.jpg", JPEG)
    write(bed.photos, "plain.jpg", JPEG)
    os.symlink(outside, bed.photo("link.jpg"))
    os.symlink(os.path.dirname(outside), bed.photo("directory"))
    os.symlink(bed.photos, bed.photo("loop"))
    walked = run(bed, bed.photos, "--out", bed.out)
    assert (walked.code, walked.last["done"]) == (0, 1), walked.err
    named = run(bed, bed.photo("link.jpg"), "--base", bed.photos, "--out", bed.out)
    assert (named.code, named.last["done"]) == (0, 1), named.err
    assert "link.jpg.256.webp" in bed.outputs()
    through = run(bed, bed.photo("directory"), "--out", bed.out + "2")
    assert (through.code, through.last["done"]) == (0, 1), through.err


def test_file_that_is_named_gets_a_verdict_whatever_it_is(bed: Bed) -> None:
    text = write(bed.photos, "notes.txt", b"no image at all")
    os.mkfifo(bed.photo("pipe.jpg"))
    ended = run(bed, text, bed.photo("pipe.jpg"), "/dev/null", "--out", bed.out)
    assert ended.code == 1
    assert (ended.last["items"], ended.last["failed"]) == (3, 3), ended.err


def test_output_directory_inside_the_input_is_no_input(bed: Bed) -> None:
    bed.fill(3)
    out = bed.photo("thumbs")
    first = run(bed, bed.photos, "--out", out)
    assert (first.code, first.last["items"]) == (0, 3), first.err
    second = run(bed, bed.photos, "--out", out)
    assert (second.code, second.last["items"]) == (0, 3), second.err
    same = run(bed, bed.photos, "--out", bed.photos)
    assert same.code == 2 and "input directory itself" in same.err


def test_foreign_file_at_an_outputs_name_is_kept_unless_overwriting(bed: Bed) -> None:
    names = bed.fill(2)
    foreign = write(bed.out, f"{names[0]}.256.webp", b"somebody else's")
    ended = run(bed, bed.photos, "--out", bed.out)
    assert (ended.code, ended.last["done"], ended.last["failed"]) == (1, 1, 1), ended.err
    verdict = results(bed, ended)[os.fsencode(bed.photo(names[0]))]
    assert isinstance(verdict["error"], dict) and verdict["error"]["kind"] == "io"
    assert "--overwrite" in verdict["error"]["message"]
    with open(foreign, "rb") as file:
        assert file.read() == b"somebody else's"
    over = run(bed, bed.photos, "--out", bed.out, "--overwrite")
    assert (over.code, over.last["done"]) == (0, 2), over.err
    assert os.path.getsize(foreign) > 15


def test_our_own_outputs_are_replaced_by_a_later_batch(bed: Bed) -> None:
    names = bed.fill(2)
    assert run(bed, bed.photos, "--out", bed.out).code == 0
    write(bed.photos, names[0], small_jpeg(9))
    target = os.path.join(bed.out, f"{names[0]}.256.webp")
    before = Path(target).read_bytes()
    again = run(bed, bed.photos, "--out", bed.out)
    assert (again.code, again.last["done"]) == (0, 2), again.err
    assert Path(target).read_bytes() != before


def test_clashing_outputs_are_refused_before_anything_runs(bed: Bed) -> None:
    one, other = os.path.join(bed.directory, "a", "x"), os.path.join(bed.directory, "b", "x")
    write(one, "p.jpg", JPEG)
    write(other, "p.jpg", JPEG)
    write(other, "q.jpg", JPEG)
    ended = run(bed, one, other, "--out", bed.out)
    assert ended.code == 2
    assert one in ended.err and other in ended.err and "p.jpg" in ended.err
    assert bed.outputs() == set()
    apart = run(bed, one, other, "--base", bed.directory, "--out", bed.out)
    assert (apart.code, apart.last["done"]) == (0, 3), apart.err
    twice = run(bed, one, one + "/", "--out", bed.out)
    assert twice.code == 0 and twice.last["items"] == 1, twice.err


def test_input_gone_or_changed_since_submission(bed: Bed) -> None:
    names = bed.fill(3)
    bed.start()
    client = bed.client()
    client.pause()
    batch = bed.submit(client, names)
    os.unlink(bed.photo(names[0]))
    write(bed.photos, names[1], small_jpeg(11))
    client.resume()
    progress = client.wait(batch, 20)
    assert (progress.counts.done, progress.counts.failed) == (2, 1)
    found = bed.results(client, batch)
    assert found[names[0]]["error"]["kind"] == "io" and bed.photo(names[0]) in found[names[0]]["error"]["message"]
    assert any("changed since" in warning for warning in found[names[1]]["warnings"])
    assert found[names[2]]["warnings"] == []


@pytest.mark.parametrize("umask", [0o027, 0o077])
def test_outputs_honour_the_umask(bed: Bed, umask: int) -> None:
    bed.fill(2)
    bed.prefix = ("sh", "-c", f'umask {umask:o} && exec "$@"', "sh")
    assert run(bed, bed.photos, "--out", os.path.join(bed.out, "new")).code == 0
    for where, _, names in os.walk(bed.out):
        assert stat.S_IMODE(os.stat(where).st_mode) == 0o777 & ~umask
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(where, name)).st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(os.stat(bed.state).st_mode) == 0o700


def test_output_directory_that_cannot_be_written_pauses_the_batch_and_says_so(bed: Bed) -> None:
    """A file stands where a directory is needed, or the file system is read-only: both without being root's victim."""
    import subprocess

    if os.geteuid() != 0:
        pytest.skip("a read-only mount needs root")
    names = bed.fill(4)
    os.mkdir(bed.out)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", bed.out], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no read-only disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        bed.start()
        client = bed.client()
        batch = bed.submit(client, names)
        paused = wait_for(lambda: client.progress(batch).paused or "", "the batch is paused")
        assert "Read-only" in paused and bed.out in paused
        subprocess.run(["mount", "-o", "remount,rw", bed.out], check=True)
        assert client.wait(batch, 20).counts.done == 4
    finally:
        bed.run("stop", "--now")
        subprocess.run(["umount", "-l", bed.out], check=True)


def test_file_where_an_output_directory_is_needed_fails_its_image_alone(bed: Bed) -> None:
    write(bed.photos, "sub/p.jpg", JPEG)
    write(bed.photos, "q.jpg", JPEG)
    write(bed.out, "sub", b"in the way")
    ended = run(bed, bed.photos, "--out", bed.out)
    assert (ended.code, ended.last["done"], ended.last["failed"]) == (1, 1, 1), ended.err


def test_unreadable_input_is_an_io_verdict(bed: Bed) -> None:
    os.symlink(bed.photo("nowhere"), bed.photo("dangling.jpg"))
    write(bed.photos, "good.jpg", JPEG)
    bed.start()
    client = bed.client()
    progress = client.wait(bed.submit(client, ["dangling.jpg", "good.jpg", "good.jpg/x", to_token(b"n\xff")]), 20)
    assert (progress.counts.done, progress.counts.failed) == (1, 3)
    kinds = {row["error"]["kind"] for row in client.iter_results(progress.batch, ["failed"])}
    assert kinds == {"io"}


def test_ignored_files_are_counted_and_hidden_ones_are_not_touched(bed: Bed) -> None:
    bed.fill(2)
    write(bed.photos, "readme.txt", b"text")
    write(bed.photos, ".hidden.jpg", JPEG)
    write(bed.photos, ".git/p.jpg", JPEG)
    write(bed.photos, "image-without-extension", JPEG)
    ended = run(bed, bed.photos, "--out", bed.out)
    assert ended.code == 0, ended.err
    assert (ended.last["items"], ended.last["ignored"]) == (3, 2)
