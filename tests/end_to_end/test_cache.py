"""The cache as people meet it: second runs, moved and changed files, damage, full disks, kills, the verb."""

import os
import shutil
import signal
import sqlite3
from functools import partial
from typing import Any

import pytest

from protocol.client import Client
from protocol.messages import AskCache, CacheReport
from tests.end_to_end.bed import Bed, settled, wait_for
from tests.end_to_end.disks import fill, fill_inodes, small_disk
from tests.galleries import small_jpeg, write

MIB = 1 << 20
STATS = [
    "entries", "bytes", "limit_bytes", "hits", "misses", "hit_rate", "policy", "culled",
    "memory_entries", "memory_bytes",
]  # fmt: skip
"""DESIGN section 9's `cache stats`."""
ONE = {"operation": "thumbnail", "sizes": [48]}


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """The cache is on, as it is for users."""
    bed.environment["SUPERVISOR_CACHE"] = "yes"
    return bed


def fill_differing(bed: Bed, count: int) -> list[str]:
    """Photos of which no two are the same."""
    names = [f"q{number:03d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        write(bed.photos, name, small_jpeg(number))
    return names


def done(bed: Bed, client: Client, names: list[str], **fields: object) -> tuple[int, int]:
    """Submits and waits; how many were worked on, and how many found."""
    counts = client.wait(bed.submit(client, names, **fields), 30).counts
    assert counts.done + counts.cached == len(names), counts
    return counts.done, counts.cached


def keep(client: Client, entries: int) -> None:
    """Waits until so much is kept: that comes after the verdicts, and nobody waits for it."""

    def kept() -> bool:
        report = client.request(AskCache())
        return isinstance(report, CacheReport) and report.stats["entries"] >= entries

    wait_for(kept, f"{entries} entries are kept")


def worked(client: Client) -> int:
    """Returns how many items the workers have done."""
    return sum(worker.items_done for worker in client.status().workers)


def contents(bed: Bed, directory: str | None = None) -> dict[str, bytes]:
    """Every output with its bytes."""
    top = directory or bed.out
    found = {}
    for name in bed.outputs(directory):
        with open(os.path.join(top, name), "rb") as file:
            found[name] = file.read()
    return found


def stop(bed: Bed, client: Client) -> None:
    client.stop()
    wait_for(lambda: bed.supervisor_pid() is None, "the supervisor is gone")


def has_settled(client: Client, batch: str, count: int) -> bool:
    return settled(client.progress(batch)) >= count


def stats(bed: Bed) -> dict[str, Any]:
    return bed.run("cache", "stats", "--json").last


def test_a_second_run_is_found_wherever_the_files_and_outputs_went(bed: Bed) -> None:
    names = fill_differing(bed, 12)
    bed.start()
    client = bed.client()
    assert done(bed, client, names) == (12, 0)
    keep(client, 12)
    first, by_then = contents(bed), worked(client)
    stamps = {name: os.stat(os.path.join(bed.out, name)).st_mtime_ns for name in first}
    assert done(bed, client, names) == (0, 12)
    assert {name: os.stat(os.path.join(bed.out, name)).st_mtime_ns for name in first} == stamps, "nothing is rewritten"

    shutil.rmtree(bed.out)
    assert done(bed, client, names) == (0, 12)
    assert contents(bed) == first, "delivered again, byte for byte"

    elsewhere = bed.out + "2"
    assert done(bed, client, names, out=elsewhere) == (0, 12)
    assert contents(bed, elsewhere) == first

    os.rename(bed.photos, bed.photos + "-moved")
    bed.photos += "-moved"
    assert done(bed, client, names, out=bed.out + "3") == (0, 12)
    assert contents(bed, bed.out + "3") == first
    assert worked(client) == by_then, "no worker was asked"

    results = bed.results(client, client.batches()[0].batch)
    assert all(row["state"] == "cached" and row["cached"] and row["outputs"] for row in results.values())
    assert all(os.path.exists(output["path"]) for row in results.values() for output in row["outputs"])
    stop(bed, client)


def test_a_copy_is_found_by_its_content_and_a_changed_file_is_made(bed: Bed) -> None:
    names = fill_differing(bed, 4)
    bed.start()
    client = bed.client()
    assert done(bed, client, names) == (4, 0)
    keep(client, 4)
    shutil.copyfile(bed.photo(names[0]), bed.photo("copy.jpg"))
    assert done(bed, client, [*names, "copy.jpg"]) == (0, 5)
    assert contents(bed)["copy.jpg.256.webp"] == contents(bed)[f"{names[0]}.256.webp"]
    before = os.stat(bed.photo(names[1]))
    write(bed.photos, names[1], small_jpeg(99))
    os.utime(bed.photo(names[1]), ns=(before.st_atime_ns, before.st_mtime_ns))  # as a careless tool leaves it
    assert done(bed, client, names) == (1, 3)
    stop(bed, client)


def test_identical_images_of_a_batch_are_worked_on_once(bed: Bed) -> None:
    names = bed.fill(40)  # eight different ones
    bed.start()
    client = bed.client()
    assert done(bed, client, names) == (8, 32), "files of one size are compared by their bytes"
    keep(client, 8)
    shutil.rmtree(bed.out)
    assert done(bed, client, names) == (0, 40)
    stop(bed, client)


def test_other_parameters_are_made_and_a_restart_with_them_too(bed: Bed) -> None:
    names = fill_differing(bed, 3)
    bed.write_config(mine=[ONE])
    bed.start()
    client = bed.client()
    assert done(bed, client, names, recipe="mine") == (3, 0)
    keep(client, 3)
    stop(bed, client)
    bed.write_config(mine=[ONE | {"quality": 30}])
    bed.start()
    client = bed.client()
    assert done(bed, client, names, recipe="mine", out=bed.out + "2") == (3, 0)
    stop(bed, client)
    bed.write_config(mine=[ONE])
    bed.start()
    client = bed.client()
    assert done(bed, client, names, recipe="mine", out=bed.out + "3") == (0, 3), "what it was is still known"
    assert contents(bed, bed.out + "3") == contents(bed) != contents(bed, bed.out + "2")
    stop(bed, client)


def test_a_file_in_the_way_is_left_alone(bed: Bed) -> None:
    names = fill_differing(bed, 2)
    bed.start()
    client = bed.client()
    assert done(bed, client, names) == (2, 0)
    keep(client, 2)
    other = bed.out + "2"
    foreign = write(other, f"{names[0]}.256.webp", b"a person's own file")
    counts = client.wait(bed.submit(client, names, out=other), 30).counts
    assert (counts.failed, counts.cached) == (1, 1)
    with open(foreign, "rb") as file:
        assert file.read() == b"a person's own file"
    assert not os.path.exists(os.path.join(other, f"{names[0]}.1024.webp")), "nothing is left of a half delivery"
    assert done(bed, client, names, out=other, overwrite=True) == (0, 2)
    assert contents(bed, other) == contents(bed)
    stop(bed, client)


def test_a_damaged_blob_is_made_again(bed: Bed) -> None:
    names = [f"large{number}.jpg" for number in range(2)]
    for number, name in enumerate(names):
        write(bed.photos, name, small_jpeg(number, side=1400))
    bed.start()
    client = bed.client()
    assert done(bed, client, names) == (2, 0)
    keep(client, 2)
    first = contents(bed)
    blobs = bed.outputs(os.path.join(bed.state, "blobs"))
    assert blobs, "outputs of this size lie in files"
    for blob in blobs:
        path = os.path.join(bed.state, "blobs", blob)
        os.chmod(path, 0o600)
        with open(path, "r+b") as file:
            file.seek(10)
            file.write(b"\0" * 10)
    assert bed.run("cache", "verify").code == 1
    shutil.rmtree(bed.out)
    assert done(bed, client, names) == (2, 0)
    keep(client, 2)
    assert contents(bed) == first
    assert bed.run("cache", "verify").code == 0
    stop(bed, client)


def test_a_damaged_index_is_set_aside_and_made_anew(bed: Bed) -> None:
    names = fill_differing(bed, 6)
    bed.start()
    client = bed.client()
    assert done(bed, client, names) == (6, 0)
    keep(client, 6)
    first = contents(bed)
    stop(bed, client)
    for suffix in ("-wal", "-shm"):
        if os.path.exists(os.path.join(bed.state, "cache.db" + suffix)):
            os.unlink(os.path.join(bed.state, "cache.db" + suffix))
    with open(os.path.join(bed.state, "cache.db"), "r+b") as file:
        file.write(b"no database at all")
    told = bed.run("cache", "stats")
    assert told.code == 4 and "set" in told.err and len(told.err.splitlines()) == 1
    shutil.rmtree(bed.out)
    supervisor = bed.start()
    client = bed.client()
    made, found = done(bed, client, names)
    assert made + found == 6 and contents(bed) == first
    keep(client, 6)
    assert "damaged" in supervisor.said()
    assert [name for name in os.listdir(bed.state) if name.startswith("cache.db") and "damaged" in name]
    shutil.rmtree(bed.out)
    assert done(bed, client, names) == (0, 6)
    stop(bed, client)


def test_without_a_cache_everything_is_made_and_verbs_say_so(bed: Bed) -> None:
    names = fill_differing(bed, 2)
    bed.start(cache="no")
    client = bed.client()
    assert done(bed, client, names) == (2, 0)
    assert done(bed, client, names) == (2, 0)
    assert not os.path.exists(os.path.join(bed.state, "cache.db"))
    told = bed.run("cache", "clear")
    assert told.code == 2 and "turned off" in told.err
    stop(bed, client)


def test_a_cache_that_is_too_small_keeps_its_limit_and_fails_nothing(bed: Bed) -> None:
    names = [f"large{number}.jpg" for number in range(8)]
    for number, name in enumerate(names):
        write(bed.photos, name, small_jpeg(number, side=1200))
    bed.start(cache_size="60000")
    client = bed.client()
    for _ in range(2):
        done(bed, client, names)
        assert stats(bed)["bytes"] <= 60_000
    shutil.rmtree(bed.out)
    done(bed, client, names)
    assert len(bed.outputs()) == 16
    stop(bed, client)


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_full_disk_under_the_cache_fails_nothing(bed: Bed, what: str) -> None:
    names = [f"large{number}.jpg" for number in range(12)]
    for number, name in enumerate(names):
        write(bed.photos, name, small_jpeg(number, side=1200))
    blobs = os.path.join(bed.state, "blobs")
    os.makedirs(bed.state, mode=0o700)
    with small_disk(blobs, 64 * MIB, inodes=1_000 if what == "inodes" else 0):
        ballast = fill(blobs) if what == "bytes" else fill_inodes(blobs)
        bed.start()
        client = bed.client()
        assert done(bed, client, names) == (12, 0)
        first = contents(bed)
        shutil.rmtree(bed.out)
        assert done(bed, client, names) == (12, 0), "nothing of it could be kept"
        assert contents(bed) == first
        os.unlink(ballast) if what == "bytes" else shutil.rmtree(ballast)
        done(bed, client, names)
        keep(client, 12)
        shutil.rmtree(bed.out)
        assert done(bed, client, names) == (0, 12)
        assert contents(bed) == first
        stop(bed, client)


def test_killed_between_nothing_is_lost_and_nothing_wrong_is_found(bed: Bed) -> None:
    names = fill_differing(bed, 60)
    truth = bed.directory + "/truth"
    bed.start(cache="no")
    client = bed.client()
    done(bed, client, names, out=truth)
    stop(bed, client)
    for at_least in (3, 15, 30):
        supervisor = bed.start()
        client = bed.client()
        batch = bed.submit(client, names, fingerprint="once", resume=True)
        wait_for(partial(has_settled, client, batch, at_least), "some are settled")
        supervisor.signal(signal.SIGKILL)
        supervisor.wait()
    bed.start()
    client = bed.client()
    assert sum(done(bed, client, names, fingerprint="once", resume=True)) == 60
    assert contents(bed) == contents(bed, truth)
    shutil.rmtree(bed.out)
    assert sum(done(bed, client, names)) == 60
    assert contents(bed) == contents(bed, truth)
    assert bed.run("cache", "verify").code == 0
    stop(bed, client)


def test_the_verb_with_and_without_a_supervisor(bed: Bed) -> None:
    nothing = bed.run("cache", "stats")
    assert nothing.code == 4 and "no cache here" in nothing.err and len(nothing.err.splitlines()) == 1
    assert not os.path.exists(bed.state), "asking makes nothing"
    names = fill_differing(bed, 5)
    bed.start()
    client = bed.client()
    done(bed, client, names)
    keep(client, 5)
    done(bed, client, names)
    online = stats(bed)
    assert list(online) == STATS and (online["entries"], online["hits"]) == (5, 5)
    assert "thumbnail" in bed.run("cache", "stats").out
    assert bed.run("cache", "verify", "--json").last["damaged"] == 0
    assert bed.run("cache", "policy", "lru").code == 0
    assert bed.run("cache", "policy", "best").code == 2
    assert bed.run("cache", "trim", "much").code == 2
    assert bed.run("cache", "trim", "0", "--json").last["freed_bytes"] == online["bytes"]
    assert done(bed, client, names) == (5, 0), "what was trimmed is made again"
    keep(client, 5)
    stop(bed, client)

    offline = stats(bed)
    assert list(offline) == STATS and (offline["entries"], offline["policy"]) == (5, "lru")
    assert bed.run("cache", "policy", "cost").code == 0
    assert "cost" in bed.run("cache", "policy").err
    assert bed.run("cache", "verify").code == 0
    assert "freed" in bed.run("cache", "clear").err
    assert stats(bed)["entries"] == 0 and not bed.outputs(os.path.join(bed.state, "blobs"))
    with sqlite3.connect(os.path.join(bed.state, "cache.db")) as index:
        assert index.execute("pragma integrity_check").fetchone() == ("ok",)
    index.close()
    bed.start()
    client = bed.client()
    assert done(bed, client, names) == (5, 0)
    stop(bed, client)
