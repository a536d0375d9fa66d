"""`supervisor duplicates` on real files: copies, smaller, compressed and turned ones; with a supervisor and without."""

import io
import json
import os
import shutil
import signal
from importlib.util import find_spec

import pytest
from PIL import Image

from tests.end_to_end.bed import Bed, Ended, wait_for
from tests.galleries import write
from tests.onnx_models import pooling_model
from workers import specimens

HASHED = [{"operation": "phash"}]


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """Returns the picture compressed so much."""
    into = io.BytesIO()
    picture.save(into, "JPEG", quality=quality)
    return into.getvalue()


def fill(bed: Bed) -> None:
    """Writes two photos, each with its likes, and some that are like no other."""
    first, second = specimens.photo(900, 600, seed=1), specimens.photo(800, 800, seed=2)
    write(bed.photos, "first.jpg", jpeg(first, 92))
    write(bed.photos, "first-copy.jpg", jpeg(first, 92))
    write(bed.photos, "first-small.png", specimens.encoded(first.resize((300, 200)), "PNG"))
    write(bed.photos, "first-poor.jpg", jpeg(first, 25))
    write(bed.photos, "first-turned-by-exif.jpg", specimens.jpeg(first, orientation=8))
    write(bed.photos, "first-turned.jpg", jpeg(first.rotate(90, expand=True), 92))
    write(bed.photos, os.fsencode("sub/second-") + b"\xff.jpg", jpeg(second, 90))
    write(bed.photos, "sub/second-half.jpg", jpeg(second.resize((400, 400)), 90))
    for seed in range(10, 16):
        write(bed.photos, f"other{seed}.jpg", jpeg(specimens.photo(640, 480, seed), 85))


def groups(ended: Ended) -> list[list[str]]:
    """Returns the names in each group, the best first."""
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["group"] for row in rows] == list(range(1, len(rows) + 1))
    return [[os.path.basename(each["path"]) for each in row["images"]] for row in rows]


FIRST = {"first.jpg", "first-copy.jpg", "first-small.png", "first-poor.jpg", "first-turned-by-exif.jpg"}


def test_copies_smaller_and_poorer_ones_are_found_with_and_without_a_supervisor(bed: Bed) -> None:
    fill(bed)
    bed.write_config(hashed=HASHED)
    supervisor = bed.start()
    submitted = bed.run("submit", bed.photos, "--recipe", "hashed", "--wait", "--json")
    assert submitted.code == 0, submitted.err
    running = bed.run("duplicates", "--json")
    found = groups(running)
    assert [set(group) for group in found] == [FIRST, {"second-\ufffd.jpg", "second-half.jpg"}]
    assert found[0][0] in FIRST - {"first-small.png", "first-poor.jpg"} and found[0][-1] == "first-small.png"
    rows = running.rows
    assert rows[0]["images"][0]["width"] == 900 and rows[0]["images"][0]["bytes"] > rows[0]["images"][-1]["bytes"]
    assert "path_b64" in rows[1]["images"][0] and "path_b64" not in rows[1]["images"][1]
    assert 0 <= rows[0]["distance_max"] <= 12 and len(rows[0]["images"][0]["hash"]) == 16

    supervisor.signal(15)
    assert supervisor.wait().code == 0
    assert bed.run("duplicates", "--json").out == running.out
    batch = json.loads(submitted.out.splitlines()[0])["batch"]
    assert bed.run("duplicates", batch, "--json").out == running.out
    assert [set(group) for group in groups(bed.run("duplicates", bed.photo("sub"), "--json"))] == [
        {"second-\ufffd.jpg", "second-half.jpg"}
    ]
    assert next(set(group) for group in groups(bed.run("duplicates", "--by", "dhash", "--json"))) >= {
        "first.jpg", "first-copy.jpg",
    }  # fmt: skip
    exact = groups(bed.run("duplicates", "--distance", "0", "--json"))
    assert {"first.jpg", "first-copy.jpg"} <= set(exact[0])

    shutil.rmtree(bed.photo("sub"))
    os.unlink(bed.photo("first.jpg"))
    os.link(bed.photo("first-copy.jpg"), bed.photo("first.jpg"))
    told = bed.run("duplicates")
    assert told.code == 0 and "keep" in told.out and "2 images are left out" in told.err
    assert "flat" not in told.out
    assert "1 group of 5 images among 14" in told.err


def test_flat_pictures_are_a_group_with_a_warning(bed: Bed) -> None:
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        write(bed.photos, f"{name}.png", specimens.encoded(Image.new("RGB", (300, 200), colour), "PNG"))
    bed.write_config(hashed=HASHED)
    assert bed.run("run", bed.photos, "--recipe", "hashed").code == 0
    told = bed.run("duplicates")
    assert told.code == 0 and "red.png" in told.out and "flat pictures" in told.out and "look at them" in told.out


def test_what_cannot_be_meant_is_said(bed: Bed) -> None:
    assert bed.run("duplicates").code == 3
    write(bed.photos, "a.jpg", jpeg(specimens.photo(64, 64, seed=1), 90))
    bed.write_config(sized=[{"operation": "probe"}])
    assert bed.run("run", bed.photos, "--recipe", "sized").code == 0
    ended = bed.run("duplicates")
    assert ended.code == 0 and ended.out == "" and "no image known here has a phash" in ended.err
    for words, sentence in (
        (("nobatch",), "nobatch"),
        (("./nowhere/here",), "is not a directory"),
        (("--distance", "17"), "whole bits, 0 to 16"),
        (("--distance", "0.1"), "whole bits, 0 to 16"),
        (("--by", "vector", "--distance", "0.9"), "0 to 0.5"),
    ):
        ended = bed.run("duplicates", *words)
        assert ended.code == 2 and sentence in ended.err, (words, ended.err)


MISSING = [name for name in ("numpy", "onnxruntime") if find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (the extra 'embed')")
def test_vectors_of_a_model_find_them_too_from_inside_the_sandbox(bed: Bed) -> None:
    fill(bed)
    model = os.fsdecode(write(bed.directory, "models/pooling.onnx", pooling_model()))
    step = {"operation": "embed", "model": model, "size": 32, "fit": "squash", "mean": [0.5, 0.5, 0.5]}
    bed.write_config(seen=[step])
    supervisor = bed.start()
    submitted = bed.run("submit", bed.photos, "--recipe", "seen", "--wait", "--json")
    assert submitted.code == 0, submitted.err
    words = ("duplicates", "--by", "vector", "--distance", "0.01", "--json")
    running = bed.run(*words)
    found = [set(group) for group in groups(running)]
    assert FIRST in found and {"second-\ufffd.jpg", "second-half.jpg"} in found
    assert all(row["images"][0]["hash"] is None and 0 <= row["distance_max"] < 0.05 for row in running.rows)
    write(bed.photos, "late.jpg", jpeg(specimens.photo(900, 600, seed=1).resize((450, 300)), 60))
    assert bed.run("submit", bed.photo("late.jpg"), "--recipe", "seen", "--wait").code == 0
    supervisor.signal(15)
    assert supervisor.wait().code == 0
    assert FIRST | {"late.jpg"} in [set(group) for group in groups(bed.run(*words))]
    batch = json.loads(submitted.out.splitlines()[0])["batch"]
    assert FIRST in [set(group) for group in groups(bed.run(*words, batch))]
    assert len(groups(bed.run(*words, bed.photo("sub")))) == 1


@pytest.mark.skipif(not MISSING, reason="numpy and onnxruntime are installed")
def test_what_vectors_need_is_named(bed: Bed) -> None:
    bed.start()
    ended = bed.run("duplicates", "--by", "vector")
    if "numpy" in MISSING:
        assert ended.code == 70 and "pip install 'gallery-supervisor[embed]'" in ended.err
    bed.write_config(seen=[{"operation": "embed", "model": os.fsdecode(write(bed.directory, "m", pooling_model()))}])
    ended = bed.run("run", bed.photos, "--recipe", "seen", state=os.path.join(bed.directory, "t"))
    assert ended.code != 0 and "pip install 'gallery-supervisor[embed]'" in ended.err


def forget_first(bed: Bed, recipe: str) -> None:
    """Runs a batch on all photos, then another on some, and waits until a supervisor has forgotten the first."""
    bed.environment["SUPERVISOR_CACHE"] = "yes"
    with open(bed.config, "a", encoding="utf-8") as config:
        config.write('[retention.preview]\nage = "1h"\ncount = 1\n')
    fill(bed)
    supervisor = bed.start()
    for name, where in (("first", bed.photos), ("second", os.path.join(bed.photos, "sub"))):
        words = ("submit", where, "--recipe", recipe, "--kind", "preview", "--batch", name, "--wait")
        assert bed.run(*words).code == 0
    supervisor.signal(signal.SIGTERM)
    supervisor.wait()
    bed.start()
    wait_for(lambda: len(bed.run("batches", "--json").rows[-1]) == 1, "the first batch is forgotten")


def test_hashes_of_a_forgotten_batch_come_back_with_the_next_run_without_any_work(bed: Bed) -> None:
    bed.write_config(hashed=HASHED)
    forget_first(bed, "hashed")
    assert FIRST not in [set(group) for group in groups(bed.run("duplicates", "--json"))]
    again = bed.run("submit", bed.photos, "--recipe", "hashed", "--wait", "--json").last
    assert (again["done"], again["cached"]) == (0, again["items"])
    assert FIRST in [set(group) for group in groups(bed.run("duplicates", "--json"))]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (the extra 'embed')")
def test_vectors_of_a_forgotten_batch_come_back_from_the_cache_or_are_made_again(bed: Bed) -> None:
    model = os.fsdecode(write(bed.directory, "models/pooling.onnx", pooling_model()))
    bed.write_config(seen=[{"operation": "embed", "model": model, "size": 32, "fit": "squash", "mean": [0.5] * 3}])
    forget_first(bed, "seen")
    words = ("duplicates", "--by", "vector", "--distance", "0.01", "--json")
    assert FIRST not in [set(group) for group in groups(bed.run(*words))]
    again = bed.run("submit", bed.photos, "--recipe", "seen", "--batch", "third", "--wait", "--json").last
    assert (again["done"], again["cached"]) == (0, again["items"])
    found = bed.run(*words).out
    assert FIRST in [set(group) for group in groups(bed.run(*words))]

    shutil.rmtree(os.path.join(bed.state, "vectors"))  # only a copy that can be searched
    assert bed.run(*words).out == found
    assert bed.run(*words, "--exact").out == found
    assert bed.run("cache", "clear").code == 0
    shutil.rmtree(os.path.join(bed.state, "vectors"))
    made = bed.run("submit", bed.photos, "--recipe", "seen", "--batch", "fourth", "--wait", "--json").last
    assert (made["done"], made["cached"]) == (made["items"] - 1, 1), "two are the same file: one is made"
    assert bed.run(*words).out == found
