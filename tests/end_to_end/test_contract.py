"""The command line as others script against it: exit codes, keys of JSON, waiting, pausing, stopping."""

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from tests.end_to_end.bed import Bed, lives, settled, wait_for
from tests.galleries import write

RUN = {
    "batch", "items", "done", "cached", "failed", "quarantined", "cancelled", "ignored", "seconds",
    "items_per_second", "peak_bytes", "budget_bytes", "recycles", "restarts", "kills", "batch_shrinks", "oom_kills",
    "out",
}  # fmt: skip
RESULT = {
    "path", "state", "error", "attempts", "outputs", "values", "seconds", "peak_bytes", "worker", "cached", "warnings",
}  # fmt: skip
STATUS = {
    "version", "pid", "uptime_seconds", "level", "pressure", "budget_bytes", "used_bytes", "queue", "workers", "totals",
}  # fmt: skip
WORKER = {
    "slot", "pid", "state", "rss_bytes", "private_bytes", "baseline_bytes", "soft_bytes", "hard_bytes", "batch_size",
    "items_done", "current", "recycles", "restarts", "last_death",
}  # fmt: skip
TOTALS = {"done", "cached", "failed", "quarantined", "recycles", "restarts", "batch_shrinks", "kills"}
SLOW = {"operation": "misbehave.hang", "seconds": 0.02}


def check_sum(row: Mapping[str, Any]) -> None:
    settled_items = sum(row[state] for state in ("done", "cached", "failed", "quarantined", "cancelled"))
    assert settled_items == row["items"]


# ---- exit codes ----------------------------------------------------------------------------------


def test_run_that_goes_well_is_0_and_prints_exactly_its_keys(bed: Bed) -> None:
    bed.fill(5)
    ended = bed.run("run", bed.photos, "--out", bed.out, "--json", memory="512M")
    assert ended.code == 0, ended.err
    [row] = ended.rows
    assert set(row) == RUN
    check_sum(row)
    assert (row["items"], row["done"], row["out"]) == (5, 5, bed.out)
    assert row["budget_bytes"] <= 512 << 20 and row["peak_bytes"] > 0 and row["seconds"] > 0
    assert bed.supervisor_pid() is None, "its supervisor is gone with it"


def test_run_without_json_prints_nothing_on_standard_output(bed: Bed) -> None:
    bed.fill(2)
    ended = bed.run("run", bed.photos, "--out", bed.out)
    assert (ended.code, ended.out) == (0, "")
    assert "2 images: 2 done" in ended.err and "\r" not in ended.err, "bars only on a terminal"


def test_run_with_a_bad_image_is_1_and_its_reason_is_told(bed: Bed) -> None:
    bed.fill(2)
    bad = write(bed.photos, "bad.jpg", b"\xff\xd8\xff\xe0 not really")
    ended = bed.run("run", bed.photos, "--out", bed.out, "--json")
    assert ended.code == 1 and (ended.last["done"], ended.last["failed"]) == (2, 1)
    assert os.fsdecode(bad) in ended.err
    check_sum(ended.last)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "/no/such/place", "--out", "OUT"), "/no/such/place"),
        (("run", "PHOTOS"), "--out"),
        (("run", "PHOTOS", "--out", "OUT", "--recipe", "nope"), "nope"),
        (("run", "PHOTOS", "--out", "OUT", "--workers", "many"), "--workers"),
        (("run", "PHOTOS", "--out", "OUT", "--memory", "12Q"), "--memory"),
        (("run", "PHOTOS", "--out", "CONFIG"), "no directory"),
        (("stats",), "status"),
        (("status", "--bogus"), "--bogus"),
        ((), "usage"),
    ],
)
def test_wrong_use_is_2_and_names_the_fault(bed: Bed, words: tuple[str, ...], said: str) -> None:
    names = {"PHOTOS": bed.photos, "OUT": bed.out, "CONFIG": bed.config}
    ended = bed.run(*(names.get(word, word) for word in words))
    assert ended.code == 2, ended
    assert said in ended.err and "Traceback" not in ended.err
    assert not os.path.exists(bed.out)


def test_wrong_value_of_a_variable_names_the_variable(bed: Bed) -> None:
    ended = bed.run("start", workers="0")
    assert ended.code == 2 and "SUPERVISOR_WORKERS" in ended.err


def test_no_supervisor_is_3(bed: Bed) -> None:
    for words in (("status",), ("health",), ("wait",), ("submit", bed.photos, "--out", bed.out), ("stop",), ("pause",)):
        ended = bed.run(*words)
        assert ended.code == 3, (words, ended)
        assert bed.state in ended.err


def test_queue_that_is_full_is_4_with_the_reason_and_nothing_half_accepted(bed: Bed) -> None:
    names = bed.fill(30)
    bed.write_config(slow=[SLOW])
    bed.start(queue_max_items="20")
    ended = bed.run("submit", bed.photos, "--out", bed.out, "--recipe", "slow")
    assert ended.code == 4 and "queue" in ended.err and "20" in ended.err, ended
    client = bed.client()
    assert all(settled(client.progress(row.batch)) == row.items for row in client.batches())
    few = [bed.photo(name) for name in names[:10]]
    assert bed.run("submit", *few, "--out", bed.out, "--recipe", "slow", "--wait").code == 0


def test_unknown_batch_is_2(bed: Bed) -> None:
    bed.start()
    for verb in ("show", "wait", "results", "cancel", "retry", "pause"):
        ended = bed.run(verb, "nobody")
        assert ended.code == 2 and "nobody" in ended.err, (verb, ended)


def test_ctrl_c_is_130_and_a_second_one_is_at_once(bed: Bed) -> None:
    bed.fill(50)
    bed.write_config(hanging=[{"operation": "misbehave.hang"}])
    command = bed.command("run", bed.photos, "--out", bed.out, "--recipe", "hanging", drain="20s")
    wait_for(bed.serves, "it listens")
    client = bed.client()
    wait_for(lambda: any(worker.current for worker in client.status().workers), "an image is in progress")
    workers = [worker.pid for worker in client.status().workers if worker.pid]
    command.signal(signal.SIGINT)
    wait_for(lambda: "is kept" in command.said(), "it stops in order")
    assert command.running
    command.signal(signal.SIGINT)
    assert command.wait(10).code == 130
    wait_for(lambda: bed.supervisor_pid() is None and not any(map(lives, workers)), "everybody is gone")


# ---- submit, wait, results -----------------------------------------------------------------------


def test_submit_wait_results_status_speak_as_documented(bed: Bed) -> None:
    bed.fill(20)
    write(bed.photos, "bad.jpg", b"nothing")
    write(bed.photos, "notes.txt", b"nothing")
    bed.start()
    submitted = bed.run("submit", bed.photos, "--out", bed.out, "--recipe", "web", "--json")
    assert submitted.code == 0, submitted.err
    first, last = submitted.rows
    batch = first["batch"]
    assert first == {"batch": batch} and last == {"batch": batch, "items": 21, "ignored": 1}
    waited = bed.run("wait", batch, "--json")
    assert waited.code == 1 and set(waited.last) == RUN
    check_sum(waited.last)
    rows = bed.run("results", batch, "--jsonl").rows
    assert len(rows) == 21 and all(set(row) == RESULT for row in rows)
    good = next(row for row in rows if row["path"] == bed.photo("p00003.jpg"))
    assert good["state"] == "done" and good["error"] is None and good["attempts"] == 1 and good["cached"] is False
    assert [output["path"] for output in good["outputs"]] == [
        os.path.join(bed.out, f"p00003.jpg.{side}.webp") for side in (256, 512, 1024, 2048)
    ]
    assert all(set(output) == {"step", "path", "width", "height", "bytes"} for output in good["outputs"])
    assert all(os.path.getsize(output["path"]) == output["bytes"] for output in good["outputs"])
    assert good["values"]["probe"]["width"] == 64 and good["values"]["phash"]
    assert good["worker"] in (0, 1) and good["seconds"] > 0
    [bad] = bed.run("results", batch, "--jsonl", "--failed").rows
    assert bad["state"] == "failed" and set(bad["error"]) == {"kind", "message"}
    assert bed.photo("bad.jpg") in bad["error"]["message"]

    status = bed.run("status", "--json").last
    assert set(status) >= STATUS and len(status["workers"]) == 2
    assert all(set(worker) >= WORKER for worker in status["workers"])
    assert set(status["totals"]) == TOTALS and set(status["queue"]) == {"pending", "leased"}
    assert (status["totals"]["done"], status["totals"]["failed"]) == (20, 1)
    assert bed.run("health").code == 0

    online = bed.run("results", batch, "--jsonl").out
    assert bed.run("stop").code == 0
    assert bed.run("results", batch, "--jsonl").out == online, "readable without a supervisor"
    assert bed.run("show", batch, "--json").last["state"] == "finished"
    assert bed.run("batches", "--json").rows[0][0]["batch"] == batch
    assert bed.run("quarantine", "list", "--json").code == 0
    why = bed.run("why", bed.photo("bad.jpg"))
    assert why.code == 0 and "failed" in why.out
    assert bed.run("status").code == 3


def test_wait_with_a_timeout_is_5_and_the_batch_goes_on(bed: Bed) -> None:
    names = bed.fill(40)
    bed.write_config(slow=[{"operation": "misbehave.hang", "seconds": 0.05}])
    bed.start()
    client = bed.client()
    batch = bed.submit(client, names, recipe="slow", out=None)
    ended = bed.run("wait", batch, "--timeout", "100ms")
    assert ended.code == 5 and batch in ended.err
    assert bed.run("wait").code == 0
    assert client.progress(batch).counts.done == 40


def test_submitting_under_the_same_name_again_is_harmless(bed: Bed) -> None:
    bed.fill(5)
    bed.start()
    words = ("submit", bed.photos, "--out", bed.out, "--batch", "nightly", "--wait", "--json")
    assert bed.run(*words).code == 0
    again = bed.run(*words)
    assert again.code == 0 and again.last["items"] == 5
    assert len(bed.client().batches()) == 1 and bed.client().status().totals.done == 5


def test_cancel_keeps_what_is_done_and_retry_takes_what_failed(bed: Bed) -> None:
    names = bed.fill(200)
    bed.write_config(slow=[SLOW])
    bed.start(batch_size_max="4")
    client = bed.client()
    batch = bed.submit(client, names, recipe="slow", out=None)
    wait_for(lambda: settled(client.progress(batch)) >= 4, "work has begun")
    assert bed.run("cancel", batch).code == 0
    progress = client.wait(batch, 10)
    assert progress.state == "cancelled"
    assert progress.counts.done >= 4 and progress.counts.cancelled > 0
    assert progress.counts.done + progress.counts.cancelled == 200
    assert bed.run("cancel", batch).code == 0, "once more is harmless"

    bad = write(bed.photos, "bad.jpg", b"nothing")
    other = bed.submit(client, ["bad.jpg"])
    assert client.wait(other, 10).counts.failed == 1
    with open(bed.photo(names[0]), "rb") as good:
        write(bed.photos, os.path.basename(bad), good.read())
    assert bed.run("retry", other).code == 0
    assert bed.run("wait", other).code == 0
    assert client.progress(other).counts.done == 1
    assert bed.run("retry", other).code == 0, "nothing failed any more"


def test_pause_and_resume_of_a_batch_and_of_all_work(bed: Bed) -> None:
    names = bed.fill(100)
    bed.write_config(slow=[SLOW])
    bed.start(batch_size_max="2")
    client = bed.client()
    batch = bed.submit(client, names, recipe="slow", out=None)
    assert bed.run("pause", batch, "--reason", "backup runs").code == 0
    wait_for(lambda: client.progress(batch).counts.leased == 0, "leases run out")
    assert client.progress(batch).state == "paused" and "backup runs" in bed.run("show", batch).out
    other = client.wait(bed.submit(client, names[:3], recipe="slow", out=None), 10)
    assert other.counts.done == 3, "other batches go on"
    held = settled(client.progress(batch))
    assert held < 100
    assert bed.run("pause").code == 0
    assert bed.run("resume", batch).code == 0
    third = bed.submit(client, names[:3], recipe="slow", out=None)
    assert client.status().paused and settled(client.progress(third)) == 0 and settled(client.progress(batch)) == held
    assert bed.run("resume").code == 0
    assert client.wait(third, 20).counts.done == 3 and client.wait(batch, 20).counts.done == 100


def test_pause_outlives_a_restart_of_the_supervisor(bed: Bed) -> None:
    names = bed.fill(60)
    bed.write_config(slow=[SLOW])
    first = bed.start(batch_size_max="2")
    batch = bed.submit(bed.client(), names, recipe="slow", out=None)
    assert bed.run("pause", batch).code == 0
    first.signal(signal.SIGTERM)
    assert first.wait(10).code == 0
    bed.start()
    client = bed.client()
    assert client.progress(batch).state == "paused"
    client.resume(batch)
    assert client.wait(batch, 20).counts.done == 60


def test_higher_priority_runs_first(bed: Bed) -> None:
    names = bed.fill(60)
    bed.write_config(slow=[SLOW])
    bed.start(batch_size_max="2")
    client = bed.client()
    low = bed.submit(client, names, recipe="slow", out=None)
    few = [bed.photo(name) for name in names[:10]]
    high = bed.run("submit", *few, "--out", bed.out, "--recipe", "slow", "--priority", "5", "--json")
    assert high.code == 0, high.err
    assert client.wait(high.rows[0]["batch"], 10).counts.done == 10
    assert settled(client.progress(low)) < 60
    assert client.wait(low, 20).counts.done == 60


def test_run_joins_the_supervisor_that_is_there_and_leaves_it_running(bed: Bed) -> None:
    bed.fill(5)
    command = bed.start()
    ended = bed.run("run", bed.photos, "--out", bed.out, "--json")
    assert ended.code == 0 and ended.last["done"] == 5, ended.err
    assert command.running and bed.serves(command.pid)


# ---- starting and stopping -----------------------------------------------------------------------


def test_start_tells_on_one_screen_what_it_chose_and_why(bed: Bed) -> None:
    command = bed.start("--json", "--workers", "3", "--memory", "400M")
    wait_for(command.printed, "the summary is printed")
    row = json.loads(command.printed())
    assert (row["workers"], row["budget_bytes"], row["pid"]) == (3, 400 << 20, command.pid)
    screen = command.said()
    for fact in ("budget", "400 MB", "workers", "3", bed.endpoint, bed.state, "limits"):
        assert fact in screen, fact
    assert len(screen.splitlines()) < 24
    assert len(bed.client().status().workers) == 3


def test_sigterm_drains_what_runs_and_keeps_the_rest(bed: Bed) -> None:
    names = bed.fill(40)
    bed.write_config(slow=[{"operation": "misbehave.hang", "seconds": 0.1}])
    command = bed.start(drain="10s", batch_size_max="4")
    client = bed.client()
    batch = bed.submit(client, names, recipe="slow", out=None)
    wait_for(lambda: client.progress(batch).counts.leased, "it works")
    workers = [worker.pid for worker in client.status().workers if worker.pid]
    client.close()
    command.signal(signal.SIGTERM)
    assert command.wait(8).code == 0, "a drain waits for the images in progress, not for the batch"
    assert not any(map(lives, workers))
    shown = bed.run("show", batch, "--json").last
    assert shown["pending"] + shown["leased"] + shown["done"] == 40 and shown["pending"] > 0
    assert shown["quarantined"] == 0
    assert not os.path.exists(os.path.join(bed.state, "endpoint.json"))
    bed.start()
    assert bed.client().wait(batch, 30).counts.done == 40


def test_second_sigterm_is_immediate(bed: Bed) -> None:
    names = bed.fill(4)
    bed.write_config(hanging=[{"operation": "misbehave.hang"}])
    command = bed.start(drain="60s")
    client = bed.client()
    bed.submit(client, names, recipe="hanging", out=None)
    wait_for(lambda: any(worker.current for worker in client.status().workers), "an image is in progress")
    workers = [worker.pid for worker in client.status().workers if worker.pid]
    command.signal(signal.SIGTERM)
    wait_for(lambda: client.status().draining, "it drains")
    assert bed.run("health").code == 1
    refused = bed.run("submit", bed.photos, "--out", bed.out, "--recipe", "hanging")
    assert refused.code == 4 and "draining" in refused.err
    client.close()
    command.signal(signal.SIGTERM)
    assert command.wait(5).code == 0
    assert not any(map(lives, workers))


def test_stop_waits_until_the_supervisor_is_gone(bed: Bed) -> None:
    command = bed.start()
    assert bed.run("stop").code == 0
    assert command.wait(5).code == 0
    assert bed.supervisor_pid() is None


def test_state_directory_that_is_deep_or_spaced_works(bed: Bed) -> None:
    bed.fill(2)
    for name in ("d" * 120, "with space"):
        state = os.path.join(bed.directory, name)
        ended = bed.run("run", bed.photos, "--out", bed.out, "--json", "--state", state)
        assert ended.code == 0, ended.err
        rows = bed.run("batches", "--json", "--state", state).rows[0]
        assert rows[0]["done"] == 2
