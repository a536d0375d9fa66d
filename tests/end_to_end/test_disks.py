"""Disks that are full: nothing fails, the batch waits and says so, and goes on when there is room again."""

import os
import shutil

import pytest

from protocol.errors import GalleryError
from tests.end_to_end.bed import Bed, settled, wait_for
from tests.end_to_end.disks import fill, fill_inodes, small_disk

MIB = 1 << 20


def test_full_output_disk_pauses_the_batch_until_there_is_room(bed: Bed) -> None:
    names = bed.fill(60, side=320)
    with small_disk(bed.out, 8 * MIB):
        ballast = fill(bed.out, leave_bytes=40_000)
        bed.start()
        client = bed.client()
        batch = bed.submit(client, names)
        paused = wait_for(lambda: client.progress(batch).paused or "", "the batch is paused")
        assert bed.out in paused and "No space left" in paused
        assert client.progress(batch).state == "paused"
        assert client.progress(batch).counts.failed == 0
        assert any(decision.kind == "machine_error" for decision in client.decisions())
        shown = bed.run("show", batch)
        assert "paused" in shown.out and "No space left" in shown.out
        other = client.wait(bed.submit(client, names, out=bed.out + "2"), 30)
        assert other.counts.done == 60, "a batch on another disk goes on"
        os.unlink(ballast)
        assert client.wait(batch, 30).counts.done == 60
        assert bed.outputs() == {f"{name}.{side}.webp" for name in names for side in (256, 1024)}
        client.stop()
        wait_for(lambda: bed.supervisor_pid() is None, "the supervisor is gone")


def test_resume_ends_a_pause_at_once(bed: Bed) -> None:
    names = bed.fill(10, side=320)
    with small_disk(bed.out, MIB):
        ballast = fill(bed.out)
        bed.start()
        client = bed.client()
        batch = bed.submit(client, names)
        wait_for(lambda: client.progress(batch).paused, "the batch is paused")
        os.unlink(ballast)
        assert bed.run("resume", batch).code == 0
        assert client.wait(batch, 30).counts.done == 10
        client.stop()
        wait_for(lambda: bed.supervisor_pid() is None, "the supervisor is gone")


def test_full_state_disk_refuses_submissions_and_goes_on_when_there_is_room(bed: Bed) -> None:
    names = bed.fill(200, side=320)
    with small_disk(bed.state, 8 * MIB):
        bed.start()
        client = bed.client()
        batch = bed.submit(client, names)
        wait_for(lambda: settled(client.progress(batch)) > 5, "work has begun")
        ballast = fill(bed.state)
        wait_for(lambda: "the journal cannot be written" in refusal(bed, names), "submissions are refused")
        assert "full" in refusal(bed, names)
        assert client.status().pid == bed.supervisor_pid(), "it still answers"
        os.unlink(ballast)
        assert client.wait(batch, 60).counts.done == 200
        wait_for(lambda: refusal(bed, names) == "", "submissions are taken again")
        kinds = {decision.kind for decision in client.decisions(limit=500)}
        assert {"journal_stalled", "journal_recovered"} <= kinds
        client.stop()
        wait_for(lambda: bed.supervisor_pid() is None, "the supervisor is gone")


def refusal(bed: Bed, names: list[str]) -> str:
    """Submits something and returns why it was refused; empty where it was not."""
    with bed.client() as client:
        client.timeout_seconds = 1.0  # what was on its way when the disk was found full is answered later
        try:
            bed.submit(client, names, recipe="probe", out=None)
        except GalleryError as error:
            return str(error)
    return ""


def test_state_disk_that_is_full_at_the_start_is_told_and_left_whole(bed: Bed) -> None:
    with small_disk(bed.state, MIB):
        ballast = fill(bed.state)
        ended = bed.run("start")
        assert ended.code in (4, 70), ended.err
        assert bed.state in ended.err and ("full" in ended.err or "No space" in ended.err), ended.err
        assert "Traceback" not in ended.err and "fault of ours" not in ended.err
        os.unlink(ballast)
        bed.start()
        assert bed.run("stop").code == 0


def test_full_temp_disk_pauses_the_work_until_there_is_room(bed: Bed) -> None:
    names = bed.fill(30, side=320)
    temp = os.path.join(bed.state, "temp")
    with small_disk(temp, MIB):
        bed.start()
        ballast = fill(temp)
        client = bed.client()
        wait_for(lambda: "temp" in (client.status().paused or ""), "it says that the temp disk is full")
        batch = bed.submit(client, names)
        assert settled(client.progress(batch)) == 0 and "temp" in (client.progress(batch).paused or "")
        os.unlink(ballast)
        assert client.wait(batch, 30).counts.done == 30
        client.stop()
        wait_for(lambda: bed.supervisor_pid() is None, "the supervisor is gone")


@pytest.mark.parametrize("where", ["output", "temp", "state"])
def test_a_disk_without_inodes_loses_nothing(bed: Bed, where: str) -> None:
    """Room for bytes, but none for names: as a full disk; the cache's is in `test_cache`."""
    names = bed.fill(20, side=320)
    place = {
        "output": bed.out,
        "temp": os.path.join(bed.state, "temp"),
        "state": bed.state,
    }[where]
    with small_disk(place, 64 * MIB, inodes=4_000):
        bed.start()
        client = bed.client()
        ballast = fill_inodes(place)
        if where == "temp":
            wait_for(lambda: "temp" in (client.status().paused or ""), "it says that the temp disk is full")
        batch = bed.submit(client, names)
        if where in ("output", "temp"):
            wait_for(lambda: client.progress(batch).paused, "the batch is paused")
            assert client.progress(batch).counts.failed == 0
        shutil.rmtree(ballast)
        assert client.wait(batch, 60).counts.done == 20
        assert bed.outputs() == {f"{name}.{side}.webp" for name in names for side in (256, 1024)}
        client.stop()
        wait_for(lambda: bed.supervisor_pid() is None, "the supervisor is gone")
