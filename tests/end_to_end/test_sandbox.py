"""The sandbox in a whole supervisor: a hostile operation in a real run, links, single files, several directories."""

import json
import os
import sys
from pathlib import Path

import pytest

from protocol import kernel
from tests.end_to_end.bed import Bed
from tests.galleries import small_jpeg, write

OFFER = kernel.offer()
NEEDS_LANDLOCK = pytest.mark.skipif(OFFER.landlock_abi < 3, reason=f"Landlock 3 is lacking: {OFFER.level}")


def _values(bed: Bed, batch: str) -> dict[str, str]:
    rows = bed.run("results", batch, "--jsonl").rows
    found: dict[str, str] = rows[0]["values"]["misbehave.trespass"]
    return found


@NEEDS_LANDLOCK
def test_a_worker_that_was_taken_over_reads_no_keys_and_writes_nothing_outside_out(bed: Bed) -> None:
    key = os.path.join(bed.directory, "id_ed25519")
    Path(key).write_text("private")
    beside = os.path.join(bed.directory, "beside")
    attempts = [["read", key], ["write", key], ["write", beside], ["read", bed.photo("p00000.jpg")], ["tcp", "9"]]
    attempts += [["read", os.path.join(bed.state, "queue.db")], ["write", os.path.join(bed.out, "mine")]]
    bed.write_config(hostile=[{"operation": "misbehave.trespass", "attempts": attempts}])
    bed.fill(1)
    ended = bed.run("run", bed.photos, "--out", bed.out, "--recipe", "hostile", "--json")
    assert ended.code == 0, ended.err
    found = _values(bed, ended.last["batch"])
    succeeded = {name for name, how in found.items() if how == "succeeded"}
    assert succeeded == {f"read {bed.photo('p00000.jpg')}", f"write {os.path.join(bed.out, 'mine')}"}, found
    assert Path(key).read_text() == "private" and not os.path.exists(beside)
    assert ended.last["recycles"] == {}, "the roots of the first batch are no reason to recycle"


@NEEDS_LANDLOCK
def test_off_means_off(bed: Bed) -> None:
    key = os.path.join(bed.directory, "key")
    Path(key).write_text("private")
    bed.write_config(hostile=[{"operation": "misbehave.trespass", "attempts": [["read", key]]}])
    bed.fill(1)
    ended = bed.run("run", bed.photos, "--out", bed.out, "--recipe", "hostile", "--sandbox", "off", "--json")
    assert _values(bed, ended.last["batch"]) == {f"read {key}": "succeeded"}


def test_named_files_and_links_wherever_they_lead(bed: Bed) -> None:
    """Files named singly are allowed one by one; a named link is followed, below a base too."""
    elsewhere = os.path.join(bed.directory, "elsewhere")
    os.mkdir(elsewhere)
    write(elsewhere, "real.jpg", small_jpeg(1, 64))
    bed.fill(2)
    link = bed.photo("link.jpg")
    os.symlink(os.path.join(elsewhere, "real.jpg"), link)
    for extra in ((), ("--base", bed.photos)):
        out = os.path.join(bed.directory, f"out{len(extra)}")
        ended = bed.run("run", link, bed.photo("p00000.jpg"), "--out", out, "--json", *extra)
        assert ended.code == 0 and ended.last["done"] == 2, ended.err


def test_several_directories_one_after_the_other(bed: Bed) -> None:
    tops = [os.path.join(bed.directory, name) for name in ("one", "two", "three")]
    for top in tops:
        os.mkdir(top)
        bed.fill(5, directory=top)
    start = bed.start()
    for top in tops:
        ended = bed.run("submit", top, "--out", os.path.join(bed.out, os.path.basename(top)), "--wait", "--json")
        assert ended.code == 0, ended.err
    status = json.loads(bed.run("status", "--json").out)
    assert {worker["sandbox"] for worker in status["workers"]} == {OFFER.level}
    assert status["totals"]["done"] == 15 and status["totals"]["kills"] == 0
    assert start.running


def test_an_output_directory_that_vanishes_is_made_again(bed: Bed) -> None:
    import shutil

    bed.fill(3)
    bed.start()
    assert bed.run("submit", bed.photos, "--out", bed.out, "--wait").code == 0
    shutil.rmtree(bed.out)
    assert bed.run("submit", bed.photos, "--out", bed.out, "--wait").code == 0
    assert len(bed.outputs()) == 6


def test_the_level_is_told_and_a_wrong_word_refused(bed: Bed) -> None:
    rows = json.loads(bed.run("doctor", "--json").out)
    [told] = [row for row in rows if row["subject"] == "sandbox"]
    assert told["text"].startswith(OFFER.level) and (told["verdict"] == "ok") == (not OFFER.lacking())
    wrong = bed.run("start", "--sandbox", "maybe")
    assert wrong.code == 2 and "require, best-effort, off" in wrong.err


def test_require_starts_or_says_what_lacks(bed: Bed) -> None:
    bed.fill(1)
    ended = bed.run("run", bed.photos, "--out", bed.out, "--sandbox", "require")
    if OFFER.lacking():
        assert ended.code == 4 and "--sandbox best-effort" in ended.err
    else:
        assert ended.code == 0, ended.err


@pytest.mark.skipif(not OFFER.seccomp, reason="no seccomp filter can be made here")
def test_without_landlock_require_refuses_as_a_whole_and_best_effort_goes_on(bed: Bed) -> None:
    bed.prefix = [sys.executable, "-P", "-m", "tests.end_to_end.without_landlock"]
    bed.fill(2)
    for verb in (["run", bed.photos, "--out", bed.out], ["start"]):
        refused = bed.run(*verb, "--sandbox", "require")
        assert refused.code == 4 and "the kernel has no Landlock" in refused.err, refused.err
        assert "--sandbox best-effort" in refused.err and "Traceback" not in refused.err
    assert not bed.outputs()
    ended = bed.run("run", bed.photos, "--out", bed.out, "--json")
    assert ended.code == 0 and ended.last["done"] == 2, ended.err
    bed.start()
    status = json.loads(bed.run("status", "--json").out)
    assert {worker["sandbox"] for worker in status["workers"]} == {"seccomp"}


def test_an_operation_of_another_distribution_runs_confined(bed: Bed) -> None:
    """The README's example, installed beside us, named by a recipe, in a whole supervisor."""
    packages = os.path.join(bed.directory, "packages")
    info = os.path.join(packages, "old_photos-1.0.dist-info")
    os.makedirs(info)
    example = Path(__file__).with_name("example_operation.py").read_text()
    Path(packages, "old_photos.py").write_text(example)
    Path(info, "METADATA").write_text("Metadata-Version: 2.1\nName: old-photos\nVersion: 1.0\n")
    Path(info, "entry_points.txt").write_text("[gallery_supervisor.operations]\nsepia = old_photos:SEPIA\n")
    bed.environment["PYTHONPATH"] = os.pathsep.join([bed.environment["PYTHONPATH"], packages])
    bed.write_config(old=[{"operation": "sepia", "size": 32}])
    bed.fill(2)
    ended = bed.run("run", bed.photos, "--out", bed.out, "--recipe", "old", "--json")
    assert ended.code == 0 and ended.last["done"] == 2, ended.err
    assert bed.outputs() == {"p00000.jpg.sepia.jpg", "p00001.jpg.sepia.jpg"}
    bed.write_config(old=[{"operation": "sepia", "siez": 32}])
    wrong = bed.run("run", bed.photos, "--out", bed.out, "--recipe", "old")
    assert wrong.code != 0 and "its parameters are: size, quality" in wrong.err
