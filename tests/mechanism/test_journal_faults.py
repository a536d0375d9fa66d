"""The journal when things go wrong: killed, full disk, values that no row holds; and with many rows."""

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from protocol.errors import MachineError
from protocol.messages import Counts, Decisions, Events, Progress, Results, ResultsPage
from supervisor.mechanism.journal import Answered, journal
from supervisor.policy import commands as c
from supervisor.policy import events as e
from tests.mechanism.journal_bed import PEER, Bed, record, settlement, wait_until
from tests.mechanism.journal_child import names_of

ROUNDS = 8


def killed_while_journaling(directory: Path, turn: int, lines_before: int) -> list[str]:
    """Returns what a journaling child said before it was killed, no line cut short."""
    command = [sys.executable, "-m", "tests.mechanism.journal_child", str(directory), str(turn)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines_before)]
        child.kill()
        said += child.stdout.readlines()
    assert said[0] == b"ready\n", said
    return [line.decode().strip() for line in said[1:] if line.endswith(b"\n")]


def test_whatever_was_acknowledged_before_kill_9_is_there_after_it(tmp_path: Path) -> None:
    random = Random(7)
    names: set[str] = set()
    settled: set[int] = set()
    for turn in range(ROUNDS):
        for line in killed_while_journaling(tmp_path, turn, random.randrange(1, 60)):
            kind, number = line.split()
            if kind == "chunk":
                names.update(names_of(turn, int(number)))
            else:
                settled.add(int(number))
        bed = Bed(str(tmp_path), start=False)
        assert not bed.recovered.clean
        found = bed.recovered.records[0]
        bed.journal.start()
        pending = bed.fetch(limit=100_000)
        done = {row["path"] for row in bed.results(limit=5000)}
        assert names <= {item.stem for item in pending} | {path.removeprefix("/in/") for path in done}
        assert not settled & {item.id for item in pending}
        assert found.counts == Counts(pending=len(pending), done=len(done))
        assert found.items == len(pending) + len(done) == found.next_chunk * 20, "a chunk is there whole or not at all"
        bed.close()
    assert len(settled) > 20, "the child got somewhere"


@pytest.fixture
def file_size() -> Iterator[None]:
    """Lets a test lower the largest size a file may have, which a disk that is full looks like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is turned away, however long the disk refuses."""
    monkeypatch.setattr(journal, "TURN_AWAY_DELAY_SECONDS", 1e9)


def limit_files(size_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.usefixtures("file_size")
def test_who_asks_while_the_disk_is_full_is_refused_soon_and_what_is_settled_waits(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    one, _ = bed.filled(["a", "b"])
    limit_files(os.path.getsize(tmp_path / "queue.db-wal"))
    bed.send(["c"], 1)
    bed.expect(e.JournalStalled)
    bed.journal.submit(c.SettleItems(settlements=[settlement(one.id)]))
    bed.journal.submit(c.SealBatch(peer=PEER, request_id=9, batch="b1", ignored=0))
    refused = [bed.expect(e.JournalRefused) for _ in range(2)]
    assert [(each.request_id, each.was_insert) for each in refused] == [(7, True), (9, False)]
    assert {(each.code, each.fault) for each in refused} == {("busy", "machine")}
    assert str(tmp_path / "queue.db") in refused[0].message
    limit_files(resource.RLIM_INFINITY)
    bed.expect(e.JournalRecovered)
    assert bed.expect(e.ItemsCommitted).settlements[0].id == one.id
    assert bed.insert(["c"], 1).added == 1, "nothing of it was kept"
    bed.close()


@pytest.mark.usefixtures("file_size", "patient")
def test_a_full_disk_is_told_once_and_nothing_is_lost(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    bed.filled(["a"])
    limit_files(os.path.getsize(tmp_path / "queue.db-wal"))
    bed.send(["b"], 1)
    stalled = bed.expect(e.JournalStalled)
    assert str(tmp_path / "queue.db") in stalled.reason
    bed.send(["c"], 2)
    bed.journal.submit(c.Note(kind="test", message="kept too"))
    answer = bed.ask(Progress(batch="b1"))
    assert answer.items == 1, "readers are answered meanwhile"  # type: ignore[union-attr]
    limit_files(resource.RLIM_INFINITY)
    bed.expect(e.JournalRecovered)
    assert [bed.expect(e.ItemsInserted).chunk for _ in range(2)] == [1, 2]
    assert bed.counts() == Counts(pending=3)
    bed.close()


@pytest.mark.usefixtures("file_size", "patient")
def test_closing_on_a_full_disk_gives_up_and_says_what_is_missing(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    bed.filled(["a"])
    limit_files(os.path.getsize(tmp_path / "queue.db-wal"))
    bed.send(["b"], 1)
    bed.expect(e.JournalStalled)
    with pytest.raises(MachineError, match="1 changes not committed"):
        bed.journal.close(patience_seconds=0.2)
    limit_files(resource.RLIM_INFINITY)
    again = Bed(str(tmp_path))
    assert (again.recovered.clean, again.recovered.records[0].items) == (False, 1)
    again.close()


@pytest.mark.usefixtures("patient")
def test_a_small_file_system_that_fills_up(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        bed = Bed(str(tmp_path))
        bed.filled(["a"])
        ballast = tmp_path / "ballast"
        with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        bed.send([f"{n:050}" for n in range(1000)], 1)
        assert "full" in bed.expect(e.JournalStalled).reason
        ballast.unlink()
        bed.expect(e.JournalRecovered)
        assert bed.expect(e.ItemsInserted).added == 1000
        bed.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_outputs_that_cannot_be_synced_wait_and_hold_up_nobody_else(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path / "state"))
    one, two = bed.filled(["a", "b"])
    output = tmp_path / "a.webp"
    output.write_bytes(b"x")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
        bed.journal.submit(c.SettleItems(settlements=[settlement(one.id, written=[str(output)])]))
        assert str(output) in bed.expect(e.JournalStalled).reason
        assert bed.settle(settlement(two.id))[0].id == two.id
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    bed.expect(e.JournalRecovered)
    assert bed.expect(e.ItemsCommitted).settlements[0].id == one.id
    bed.close()


@pytest.mark.parametrize("written", ["/proc/self/mem", "/dev/null", "x" * 5000, "//base64:!", "nul\0", ""])
def test_a_name_that_holds_no_output_of_ours_holds_up_nobody(tmp_path: Path, written: str) -> None:
    bed = Bed(str(tmp_path))
    (item,) = bed.filled(["a"])
    bed.settle(settlement(item.id, written=[written]))
    bed.close()


def test_a_value_that_no_row_holds_is_refused_alone(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    bed.create()
    with_surrogate = c.Note(kind="test", message="file \udcff.jpg", figures={"path": "\udcff"})
    for command in (
        c.CreateBatch(peer=PEER, request_id=8, record=record("b2", priority=2**70), resume=False),
        c.Note(kind="test", message="m", slot=2**70),
        with_surrogate,
    ):
        bed.journal.submit(command)
    bed.send(["a"])
    refused = bed.expect(e.JournalRefused)
    assert (refused.request_id, refused.code) == (8, "journal")
    assert bed.expect(e.ItemsInserted).added == 1
    bed.close()


def test_closing_commits_what_was_submitted_and_ends_the_threads(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    everything = bed.filled([str(n) for n in range(500)])
    output = tmp_path / "out.webp"
    output.write_bytes(b"x")
    for item in everything:
        bed.journal.submit(c.SettleItems(settlements=[settlement(item.id, written=[str(output)])]))
    bed.journal.close()
    assert not {thread.name for thread in threading.enumerate()} & {"journal", "sync"}
    again = Bed(str(tmp_path), start=False)
    assert again.recovered.clean
    assert again.recovered.records[0].counts == Counts(done=500)
    again.close()
    again.close()


def test_a_hundred_thousand_items(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    bed.create()
    total, chunk = 100_000, 5_000
    for number in range(total // chunk):
        bed.send([f"2024/{number:03}/img_{n:05}.jpg" for n in range(chunk)], number)
    assert sum(bed.expect(e.ItemsInserted).added for _ in range(total // chunk)) == total
    after = 0
    while items := bed.fetch(after=after, limit=10_000):
        after = items[-1].id
        for start in range(0, len(items), 250):
            part = [settlement(item.id, slot=1, detail=b'{"values":{"n":1}}') for item in items[start : start + 250]]
            bed.journal.submit(c.SettleItems(settlements=part))
        told = 0
        while told < len(items):
            told += len(bed.expect(e.ItemsCommitted).settlements)
    wal = os.path.getsize(tmp_path / "queue.db-wal")
    assert wal < 80 * 1024 * 1024, f"the WAL has {wal:,} bytes"
    read, mark = 0, 0
    while True:
        page = bed.ask(Results(batch="b1", after=mark, limit=5000))
        assert isinstance(page, ResultsPage)
        read += len(page.results)
        if page.next is None:
            break
        mark = page.next
    assert read == total
    bed.finish()
    assert bed.counts() == Counts(done=total)
    bed.close()


def test_readers_do_not_wait_for_all_writers(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    everything = bed.filled([str(n) for n in range(5000)])
    for item in everything:
        bed.journal.submit(c.SettleItems(settlements=[settlement(item.id)]))
    bed.journal.submit(c.Query(peer=PEER, request=Progress(batch="b1")))
    wait_until(lambda: bed.journal.backlog == 0 and bed.posted.qsize() >= 2)
    posted = [bed.posted.get() for _ in range(bed.posted.qsize())]
    while not any(isinstance(event, Answered) for event in posted):
        posted.append(bed.posted.get(timeout=20))
    assert not isinstance(posted[-1], Answered), "answered between two groups"
    bed.journal.close()


def test_a_disk_that_is_too_slow_for_what_clients_ask_has_them_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "NOTES_MAX", 3)
    bed = Bed(str(tmp_path), start=False)
    for number in range(3):
        bed.journal.submit(c.Note(kind="test", message=str(number)))
    bed.journal.submit(c.SealBatch(peer=PEER, request_id=9, batch="b1", ignored=0))
    refused = bed.expect(e.JournalRefused)
    assert (refused.request_id, refused.code, refused.fault) == (9, "busy", "machine")
    bed.journal.start()
    wait_until(lambda: bed.journal.backlog == 0)
    bed.create()
    bed.close()


def test_decisions_that_a_slow_disk_makes_us_drop_are_counted_in_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "NOTES_MAX", 3)
    bed = Bed(str(tmp_path), start=False)
    for number in range(5):
        bed.journal.submit(c.Note(kind="test", message=str(number)))
    bed.journal.start()
    wait_until(lambda: bed.journal.backlog == 0)
    bed.journal.submit(c.Note(kind="test", message="after"))

    def kept() -> list[str]:
        answer = bed.ask(Events())
        assert isinstance(answer, Decisions)
        return [decision.message for decision in answer.decisions]

    wait_until(lambda: "after" in kept())
    assert kept() == [
        "0",
        "1",
        "2",
        "2 decisions before this one were not kept: the disk was too slow for them",
        "after",
    ]
    bed.close()
