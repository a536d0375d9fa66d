"""The live picture of the pool, as a story: what is read off it line by line; and the line people wait with."""

from protocol.messages import BatchProgress, Counts, Decision, QueueStatus, Status, Summary, Totals, WorkerStatus
from supervisor.cli.tell import ProgressLine
from supervisor.cli.top_view import KEYS, Rates, Seen, bar, plain, screen
from supervisor.policy.sizes import MB


def worker(slot: int, rss_mb: int, done: int) -> WorkerStatus:
    return WorkerStatus(
        slot=slot, pid=100 + slot, state="BUSY", rss_bytes=rss_mb * MB, private_bytes=rss_mb * MB,
        baseline_bytes=40 * MB, soft_bytes=90 * MB, hard_bytes=120 * MB, batch_size=8, items_done=done,
        current="/photos/a\x1b[31m.jpg", recycles=2, restarts=1, last_death=None,
    )  # fmt: skip


def status(done: int) -> Status:
    return Status(
        id=1, version="1", pid=7, uptime_seconds=61.0, level="warning", pressure=0.82, budget_bytes=500 * MB,
        used_bytes=410 * MB, queue=QueueStatus(pending=1234, leased=16),
        workers=[worker(0, 60, done), worker(1, 100, 0)], totals=Totals(done=done, failed=3, recycles=4),
    )  # fmt: skip


def test_the_picture_tells_workers_rates_and_the_last_decisions() -> None:
    rates = Rates()
    rates.add(status(0), 10.0)
    rates.add(status(40), 14.0)
    death = Decision(number=1, at=0.0, kind="death", message="worker 1 (pid 101) ended: killed_outside")
    seen = Seen(status=status(40), batches=[], temp=None, cache=None, decisions=[death])
    text = plain(screen(seen, rates, lines=0))
    assert "410 MB of 500 MB (82%)" in text and "level warning" in text
    assert "1,234 pending, 16 leased   10.0 items/s" in text
    assert "worker 1 (pid 101) ended: killed_outside" in text
    first, second = (line for line in text.splitlines() if "BUSY" in line)
    assert first.split()[:4] == ["0", "BUSY", "60", "MB"] and "10.0" in first
    assert "\\x1b[31m" in first and "\x1b" not in text, "a file's name must not act on the terminal"
    assert second.split()[:4] == ["1", "BUSY", "100", "MB"] and "0.0" in second


def test_a_small_terminal_keeps_the_workers_and_the_keys() -> None:
    rates = Rates()
    rates.add(status(0), 0.0)
    decisions = [Decision(number=n, at=0.0, kind="level", message=f"decision {n}") for n in range(50)]
    picture = screen(Seen(status(0), [], None, None, decisions), rates, lines=14)
    text = plain(picture)
    assert len(picture) == 14 and text.splitlines()[-1] == KEYS
    assert "decision 49" in text and "decision 40" not in text


def test_a_bar_is_as_full_as_its_share_and_ticks_its_marks() -> None:
    assert bar(50, (), 100, 10) == "█████░░░░░"
    assert bar(50, (80,), 100, 10) == "█████░░░│░"
    assert bar(500, (), 100, 10) == "█" * 10, "above the limit it is full"
    assert bar(1, (), 0, 4) == "    "


def progress(done: int, failed: int, read: int, size: int) -> BatchProgress:
    return BatchProgress(
        id=1, batch="b", state="running", open=False, recipe="thumbs", out=None, items=43_257, ignored=0,
        counts=Counts(done=done, failed=failed, pending=43_257 - done - failed), used_bytes=312 * MB,
        summary=Summary(budget_bytes=512 * MB), batch_sizes=[size, size], read_bytes=read,
    )  # fmt: skip


def test_the_progress_line_tells_what_people_ask_for() -> None:
    line = ProgressLine()
    assert line.text(progress(0, 0, 0, 8), 0.0) == "0 / 43 257 (0.0 %) · 312/512 MB · batch 8"
    assert line.text(progress(453, 3, 480 * MB, 4), 10.0) == (
        "456 / 43 257 (1.1 %) · 45.6 img/s · 48 MB/s · ETA 16 min · 3 failed · 312/512 MB · batch 8→4"
    )
    later = line.text(progress(453, 3, 480 * MB, 4), 21.0)
    assert "img/s" not in later and "batch 8→4" in later, "nothing was settled within the last ten seconds"
