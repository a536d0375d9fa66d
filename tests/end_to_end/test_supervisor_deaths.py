"""The supervisor is killed with -9, again and again: what was acknowledged stands, what is there is complete."""

import contextlib
import json
import os
import random
import signal
import sqlite3
from functools import partial

from PIL import Image

from protocol.client import Client
from protocol.errors import NoSupervisor
from protocol.paths import to_token
from tests.end_to_end.bed import Bed, children_of, lives, settled, wait_for

KILLS = 20
IMAGES = 400


def has_settled(client: Client, batch: str, count: int) -> bool:
    return settled(client.progress(batch)) >= count


def all_gone(pids: set[int]) -> bool:
    return not any(map(lives, pids))


def works_on(client: Client, path: str) -> bool:
    return any(worker.current == path for worker in client.status().workers)


def check_outputs(bed: Bed, done: list[str]) -> None:
    """Every output there is decodes (a half-written one would not), and those of verdicts are there."""
    there = bed.outputs()
    for name in there:
        if not os.path.basename(name).startswith(".gs-"):
            with Image.open(os.path.join(bed.out, name)) as image:
                image.load()
    missing = {f"{name}.{side}.webp" for name in done for side in (16, 32)} - there
    assert not missing, f"verdict 'done' without outputs: {sorted(missing)[:5]}"


def verdicts(bed: Bed) -> list[str]:
    """The images with a verdict on the disk; a supervisor need not run."""
    listed = bed.run("batches", "--json").rows[0]
    rows = [row for batch in listed for row in bed.run("results", batch["batch"], "--jsonl").rows]
    assert all(row["state"] == "done" for row in rows), rows
    names = [os.path.basename(row["path"]) for row in rows]
    assert len(names) == len(set(names)), "an image has two verdicts"
    return names


def test_supervisor_killed_at_20_instants_loses_nothing_it_acknowledged(bed: Bed) -> None:
    names = bed.fill(IMAGES, side=320)
    bed.write_config(small=[{"operation": "thumbnail", "sizes": [16, 32]}])
    chance = random.Random(9)
    acknowledged = 0
    seen: set[str] = set()
    for round_number in range(KILLS):
        command = bed.start(workers="3")
        family = children_of(command.pid)
        client = Client(bed.endpoint)
        with contextlib.suppress(NoSupervisor), client:
            upto = min(IMAGES, acknowledged + chance.randrange(1, 60))
            batch = client.open_batch(batch="all", out=to_token(bed.out), recipe="small")
            batch.add(bed.photos, names[acknowledged:upto])
            batch.flush()
            acknowledged = upto
            goal = settled(client.progress("all")) + chance.randrange(12)
            wait_for(partial(has_settled, client, "all", min(goal, acknowledged)), "some work")
            family |= children_of(command.pid)
        os.kill(command.pid, signal.SIGKILL)
        command.process.wait()
        wait_for(partial(all_gone, family), "template and workers have died with it")
        if round_number % 5 == 0:
            now = set(verdicts(bed))
            assert seen <= now, "a verdict was lost"
            seen = now
            check_outputs(bed, list(now))
    bed.start(workers="3")
    client = bed.client()
    batch = client.open_batch(batch="all", out=to_token(bed.out), recipe="small")
    batch.add(bed.photos, names[acknowledged:])
    assert batch.close().items == IMAGES
    progress = client.wait("all", 60)
    assert progress.counts.done == IMAGES
    assert sorted(verdicts(bed)) == names
    assert bed.outputs() == {f"{name}.{side}.webp" for name in names for side in (16, 32)}
    check_outputs(bed, names)
    with sqlite3.connect(f"file:{bed.state}/queue.db?mode=ro", uri=True) as journal:
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_run_starts_its_killed_supervisor_again_and_finishes(bed: Bed) -> None:
    bed.fill(300, side=320)
    command = bed.command("run", bed.photos, "--out", bed.out, "--json")
    wait_for(lambda: len(bed.outputs()) > 20, "some outputs")
    first = bed.supervisor_pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    ended = command.wait(60)
    assert ended.code == 0, ended.err
    assert (ended.last["items"], ended.last["done"]) == (300, 300)
    assert "starting it again" in ended.err
    assert bed.supervisor_pid() is None


def test_run_starts_a_supervisor_again_that_is_killed_before_it_listens(bed: Bed) -> None:
    bed.fill(5)
    command = bed.command("run", bed.photos, "--out", bed.out, "--json")
    first = wait_for(lambda: children_of(command.pid), "its supervisor is on its way").pop()
    os.kill(first, signal.SIGKILL)
    ended = command.wait()
    assert ended.code == 0, ended.err
    assert ended.last["done"] == 5


def test_run_that_was_interrupted_resumes_the_same_batch_with_new_files(bed: Bed) -> None:
    bed.fill(150, side=320)
    command = bed.command("run", bed.photos, "--out", bed.out, "--json")
    wait_for(lambda: len(bed.outputs()) > 10, "some outputs")
    command.signal(signal.SIGINT)
    ended = command.wait()
    assert ended.code == 130, ended.err
    assert "is kept" in ended.err
    assert bed.supervisor_pid() is None
    batch = bed.run("batches", "--json").rows[0][0]
    assert batch["state"] not in ("finished", "cancelled") and batch["done"] < 150
    os.link(bed.photo("p00000.jpg"), bed.photo("late.jpg"))
    again = bed.run("run", bed.photos, "--out", bed.out, "--json")
    assert again.code == 0, again.err
    assert (again.last["batch"], again.last["items"], again.last["done"]) == (batch["batch"], 151, 151)
    assert len(bed.outputs()) == 302

    third = bed.run("run", bed.photos, "--out", bed.out, "--json")
    assert third.code == 0 and third.last["batch"] != batch["batch"], "a finished job is a new batch"
    assert third.last["done"] + third.last["cached"] == 151


def test_image_in_progress_at_three_unclean_stops_is_quarantined(bed: Bed) -> None:
    names = bed.fill(4)
    bed.write_config(hanging=[{"operation": "misbehave.hang", "only": names[0]}])
    batch = ""
    for stop in range(3):
        command = bed.start()
        client = bed.client()
        if not stop:
            batch = bed.submit(client, names, recipe="hanging", out=None)
        wait_for(partial(works_on, client, bed.photo(names[0])), "it is in progress")
        if stop:
            wait_for(partial(has_settled, client, batch, 3), "the others are done")
        client.close()
        os.kill(command.pid, signal.SIGKILL)
        command.process.wait()
    bed.start()
    client = bed.client()
    progress = client.wait(batch, 20)
    assert (progress.counts.done, progress.counts.quarantined) == (3, 1)
    [entry] = client.quarantine()
    assert entry.evidence["unclean_stops"] == 3


def test_second_supervisor_on_a_state_directory_is_refused_by_the_pid_of_the_first(bed: Bed) -> None:
    first = bed.start()
    ended = bed.run("start")
    assert ended.code == 4
    assert f"pid {first.pid}" in ended.err
    assert bed.serves(first.pid)


def test_state_of_a_newer_schema_is_refused_and_left_alone(bed: Bed) -> None:
    first = bed.start()
    first.signal(signal.SIGTERM)
    assert first.wait().code == 0
    journal = os.path.join(bed.state, "queue.db")
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        assert version >= 1
        connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.commit()
    ended = bed.run("start")
    assert ended.code == 4
    assert str(version + 1) in ended.err and "newer" in ended.err
    assert bed.run("batches").code == 4
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == version + 1


def test_template_that_dies_is_replaced_and_the_batch_goes_on(bed: Bed) -> None:
    names = bed.fill(300, side=320)
    command = bed.start()
    client = bed.client()
    workers = {worker.pid for worker in client.status().workers}
    batch = bed.submit(client, names)
    wait_for(lambda: settled(client.progress(batch)) > 5, "some work")
    parents = children_of(command.pid)
    for pid in parents:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[1]) == command.pid:
                os.kill(pid, signal.SIGKILL)
    progress = client.wait(batch, 60)
    assert progress.counts.done == 300, progress
    assert {worker.pid for worker in client.status().workers}.isdisjoint(workers)
    kinds = [json.loads(line)["kind"] for line in bed.run("events", "--json", "--limit", "500").out.splitlines()]
    assert "template_died" in kinds
