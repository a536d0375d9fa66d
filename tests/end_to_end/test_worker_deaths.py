"""Workers die: killed from outside without mercy, or by an image, and nothing is lost and nobody else is charged."""

import contextlib
import io
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.end_to_end.bed import Bed, lives, make_bed, settled, wait_for

KILL_EVERY_SECONDS = 0.05
MANY = 2_000


@pytest.fixture
def big_bed() -> Iterator[Bed]:
    """In memory where that is possible: thousands of files are made and deleted for one test."""
    with make_bed("/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as made:
        yield made


def decoded_size(path: str) -> tuple[int, int]:
    with open(path, "rb") as file:
        image = Image.open(io.BytesIO(file.read()))
    image.load()
    return image.size


def test_workers_killed_every_50_ms_lose_nothing_and_blame_nobody(big_bed: Bed) -> None:
    bed = big_bed
    names = bed.fill(MANY, side=320)
    bed.write_config(small=[{"operation": "thumbnail", "sizes": [16, 32]}])
    bed.start(workers="4")
    client = bed.client()
    batch = bed.submit(client, names, recipe="small")
    chance, killed = random.Random(20), 0
    last = time.monotonic()

    def over() -> bool:
        nonlocal killed, last
        if time.monotonic() - last >= KILL_EVERY_SECONDS:
            last = time.monotonic()
            pids = [worker.pid for worker in client.status().workers if worker.pid and worker.state != "STARTING"]
            if pids:
                with contextlib.suppress(ProcessLookupError):  # it may have been replaced since
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    killed += 1
        return client.progress(batch).state == "finished"

    wait_for(over, f"all {MANY} images have a verdict", 100)
    progress = client.progress(batch)
    assert killed >= 20
    assert progress.counts.done == MANY, progress
    assert not client.quarantine()
    expected = {f"{name}.{side}.webp" for name in names for side in (16, 32)}
    assert bed.outputs() == expected
    assert {decoded_size(os.path.join(bed.out, name)) for name in expected} == {(16, 12), (32, 24)}
    results = list(client.iter_results(batch))
    assert len(results) == MANY == len({result["path"] for result in results})


def test_image_that_crashes_its_worker_is_tried_alone_then_quarantined_and_remembered(bed: Bed) -> None:
    names = bed.fill(60)
    bad = names[17]
    crash = {"operation": "misbehave.crash", "only": bad}
    bed.write_config(crashing=[crash, {"operation": "thumbnail", "sizes": [16]}])
    bed.start(workers="3")
    client = bed.client()
    progress = client.wait(bed.submit(client, names, recipe="crashing"), 30)
    assert (progress.counts.done, progress.counts.quarantined, progress.counts.failed) == (59, 1, 0)
    results = bed.results(client, progress.batch)
    verdict = results.pop(bad)
    assert verdict["state"] == "quarantined" and verdict["error"]["kind"] == "crash" and verdict["attempts"] == 2
    assert bed.photo(bad) in verdict["error"]["message"] and "SIGSEGV" in verdict["error"]["message"]
    assert {result["attempts"] for result in results.values()} == {1}
    [entry] = client.quarantine()
    assert entry.path == bed.photo(bad) and entry.recipe == "crashing"
    assert entry.size_bytes == os.stat(bed.photo(bad)).st_size
    assert entry.evidence["signal"] == signal.SIGSEGV and entry.evidence["step"] == 0
    assert entry.evidence["peak_bytes"] > 0 and entry.evidence["rss_curve"]
    told = [decision.kind for decision in client.why(path=bed.photo(bad))]
    assert told.count("death") == 2 and told.count("charged") == 1 and told[-1] == "quarantined"
    deaths = client.status().totals.restarts
    assert deaths == 2

    again = client.wait(bed.submit(client, names, recipe="crashing", out=bed.out + "2"), 30)
    assert (again.counts.done, again.counts.quarantined) == (59, 1)
    assert client.status().totals.restarts == deaths, "an image in quarantine was opened again"
    assert "not opened" in bed.results(client, again.batch)[bad]["error"]["message"]

    ended = bed.run("quarantine", "retry", bed.photo(bad))
    assert ended.code == 0, ended.err
    wait_for(lambda: client.status().totals.restarts >= deaths + 2, "the retried image has killed two workers more")
    for earlier in (progress.batch, again.batch):
        assert client.wait(earlier, 30).counts.quarantined == 1

    with open(bed.photo(bad), "ab") as file:
        file.write(b"\0")
    deaths = client.status().totals.restarts
    changed = client.wait(bed.submit(client, [bad], recipe="crashing", out=bed.out + "3"), 30)
    assert changed.counts.quarantined == 1
    assert client.status().totals.restarts == deaths + 2, "a changed image is a new one"


def test_frozen_image_is_killed_by_its_time_limit_and_blamed(bed: Bed) -> None:
    names = bed.fill(20)
    hang = {"operation": "misbehave.hang", "only": names[3]}
    bed.write_config(hanging=[hang, {"operation": "thumbnail", "sizes": [16]}])
    bed.start(item_timeout="1s")
    client = bed.client()
    batch = bed.submit(client, names, recipe="hanging")
    progress = client.wait(batch, 30)
    assert (progress.counts.done, progress.counts.quarantined) == (19, 1)
    verdict = bed.results(client, batch)[names[3]]
    assert verdict["error"]["kind"] == "timeout" and verdict["attempts"] == 1
    assert progress.summary.kills == 1


def test_exit_code_of_a_worker_is_its_evidence(bed: Bed) -> None:
    names = bed.fill(6)
    bed.write_config(leaving=[{"operation": "misbehave.exit", "code": 7, "only": names[0]}])
    bed.start()
    client = bed.client()
    progress = client.wait(bed.submit(client, names, recipe="leaving", out=None), 30)
    assert (progress.counts.done, progress.counts.quarantined) == (5, 1)
    [entry] = client.quarantine()
    assert entry.evidence["exit_code"] == 7 and "exit with code 7" in entry.message


def test_exception_nobody_expected_fails_its_image_alone_and_spares_the_worker(bed: Bed) -> None:
    names = bed.fill(6)
    bed.write_config(raising=[{"operation": "misbehave.error", "only": names[2], "message": "as if broken"}])
    bed.start()
    client = bed.client()
    progress = client.wait(bed.submit(client, names, recipe="raising", out=None), 30)
    assert (progress.counts.done, progress.counts.failed) == (5, 1)
    assert client.status().totals.restarts == 0
    assert "as if broken" in bed.results(client, progress.batch)[names[2]]["error"]["message"]


def test_worker_that_ignores_sigterm_does_not_outlive_the_drain(bed: Bed) -> None:
    names = bed.fill(4)
    bed.write_config(deaf=[{"operation": "misbehave.ignore_terminate", "only": names[0]}])
    command = bed.start(drain="300ms")
    client = bed.client()
    batch = bed.submit(client, names, recipe="deaf", out=None)
    wait_for(lambda: settled(client.progress(batch)) == 3, "the others are done")
    workers = [worker.pid for worker in client.status().workers if worker.pid]
    client.close()
    command.signal(signal.SIGTERM)
    assert command.wait(10).code == 0
    assert not any(lives(pid) for pid in workers)
    bed.write_config(deaf=[{"operation": "thumbnail", "sizes": [16]}])
    bed.start()
    client = bed.client()
    assert client.progress(batch).counts.pending + client.progress(batch).counts.leased == 1
