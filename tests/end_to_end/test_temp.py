"""Temp files and retention as people meet them: by the command line, on a real supervisor."""

import os
import signal
import tempfile

from protocol.messages import TempStats
from tests.end_to_end.bed import Bed, wait_for
from tests.end_to_end.disks import fill, small_disk

MIB = 1 << 20
LITTER = {"operation": "misbehave.litter", "files": 50, "bytes": 4096}


def test_killed_workers_leave_nothing_and_stats_tell_what_the_living_hold(bed: Bed) -> None:
    bed.write_config(litter=[{**LITTER, "seconds": 60}])
    names = bed.fill(2)
    bed.start()
    client = bed.client()
    batch = bed.submit(client, names, recipe="litter")
    wait_for(lambda: bed.run("temp", "stats", "--json").last["files"] >= 100, "both workers' files are counted")
    stats = bed.run("temp", "stats", "--json").last
    keys = ["root", "bytes", "files", "open_deleted_bytes", "by_source", "leases", "reaped_bytes_total"]
    assert list(stats) == keys
    assert stats["root"] == os.path.join(bed.state, "temp")
    assert stats["by_source"] == {"misbehave.litter": 100 * 4096} and stats["bytes"] == 100 * 4096
    assert sorted(lease["slot"] for lease in stats["leases"]) == [0, 1]
    client.cancel(batch)
    dead = [lease["directory"] for lease in stats["leases"]]
    for lease in stats["leases"]:
        os.kill(lease["pid"], signal.SIGKILL)
    wait_for(lambda: not any(map(os.path.exists, dead)), "their directories are gone")
    wait_for(lambda: client.request(TempStats()).files == 0, "their files are gone")  # type: ignore[union-attr]
    assert bed.run("temp", "stats", "--json").last["reaped_bytes_total"] == 100 * 4096
    assert "0 bytes in 0 files" in bed.run("temp", "stats").out


def test_a_killed_supervisors_temp_files_are_reaped_without_one_and_at_the_next_start(bed: Bed) -> None:
    bed.write_config(litter=[{**LITTER, "seconds": 60}])
    names = bed.fill(2)
    for by_hand in (True, False):
        supervisor = bed.start()
        client = bed.client()
        batch = bed.submit(client, names, recipe="litter")
        wait_for(lambda: client.request(TempStats()).files >= 50, "temp files")  # type: ignore[union-attr]  # noqa: B023
        client.cancel(batch)
        supervisor.signal(signal.SIGKILL)
        supervisor.wait()
        temp = os.path.join(bed.state, "temp")
        wait_for(lambda: bed.run("temp", "reap", "--dry-run", "--json").last["files"] >= 50, "what it left is stale")
        assert os.listdir(temp)
        if by_hand:
            assert bed.run("temp", "reap", "--json").last["files"] >= 50
            assert os.listdir(temp) == []
    bed.start()
    wait_for(lambda: bed.run("temp", "reap", "--dry-run", "--json").last["reaped"] == [], "the next start reaps")


def test_a_full_temp_disk_pauses_before_anything_fails(bed: Bed) -> None:
    names = bed.fill(30, side=320)
    with tempfile.TemporaryDirectory(prefix="gs-") as place, small_disk(place, 16 * MIB):
        os.chmod(place, 0o700)
        ballast = fill(place, leave_bytes=300_000)
        bed.start("--temp", place)
        client = bed.client()
        paused = wait_for(lambda: client.status().paused or "", "the pool is paused")
        assert "temp directory is nearly full" in paused
        batch = bed.submit(client, names)
        assert client.progress(batch).counts.done == 0
        os.unlink(ballast)
        assert client.wait(batch, 30).counts.done == 30
        assert {decision.kind for decision in client.decisions()} >= {"temp_full", "temp_eased"}
        client.stop()
        wait_for(lambda: bed.supervisor_pid() is None, "the supervisor is gone")
        assert os.listdir(place) == [] or os.listdir(place) == ["lost+found"]


def test_a_home_is_refused_as_temp_directory_with_the_way_out(bed: Bed) -> None:
    ended = bed.run("start", "--temp", os.path.expanduser("~"))
    assert ended.code == 4
    assert "home" in ended.err and "--temp" in ended.err


def test_batches_are_forgotten_by_their_kind_and_a_rerun_may_replace_their_outputs(bed: Bed) -> None:
    names = bed.fill(3)
    with open(bed.config, "a", encoding="utf-8") as config:
        config.write('[retention.preview]\nage = "1h"\ncount = 1\n')
    supervisor = bed.start()
    for name in ("first", "second"):
        done = bed.run("submit", bed.photos, "--out", bed.out, "--batch", name, "--kind", "preview", "--wait")
        assert done.code == 0, done.err
    rows = bed.run("batches", "--sizes", "--json").rows[-1]
    assert {row["batch"]: row["kind"] for row in rows} == {"first": "preview", "second": "preview"}
    assert all(row["bytes"] > 0 for row in rows)
    supervisor.signal(signal.SIGTERM)
    supervisor.wait()
    bed.start()
    wait_for(lambda: len(bed.run("batches", "--json").rows[-1]) == 1, "the least recently used is forgotten")
    (row,) = bed.run("batches", "--json").rows[-1]
    assert row["batch"] == "second"
    assert any(event.kind == "retention" and "first" in event.message for event in bed.client().decisions())
    again = bed.run("submit", bed.photos, "--out", bed.out, "--kind", "preview", "--wait", "--json")
    assert again.last["done"] + again.last["cached"] == len(names), (
        "what a forgotten batch wrote is still ours to replace"
    )
