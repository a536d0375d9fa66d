"""`history` and `leaks` as people meet them: an operation that leaks in a real supervisor, and the file it leaves."""

import pytest

from protocol.client import Client
from tests.end_to_end.bed import Bed, wait_for

LEAK_BYTES = 100_000


def finished(client: Client, batch: str) -> None:
    """Waits until a batch is done."""
    wait_for(lambda: client.progress(batch).state == "finished", f"{batch} is done")


@pytest.mark.parametrize("where", ["heap", "native"])
def test_a_leaking_operation_is_found_and_blamed_and_the_clean_recipe_is_not(bed: Bed, where: str) -> None:
    names = bed.fill(150)
    thumbnail = {"operation": "thumbnail", "sizes": [16]}
    bed.write_config(
        leaking=[thumbnail, {"operation": "misbehave.leak", "bytes": LEAK_BYTES, "native": where == "native"}],
        clean=[thumbnail, {"operation": "phash"}],
    )
    bed.start("--workers", "2", "--cache", "no")
    client = bed.client()
    for recipe in ("clean", "leaking"):
        batch = bed.submit(client, names, recipe=recipe)
        finished(client, batch)

    report = bed.run("leaks", "--json").last

    assert report["items_watched"] > 30
    operations = [leak for leak in report["leaks"] if leak["subject_kind"] == "operation"]
    assert [leak["subject"] for leak in operations] == ["misbehave.leak"]
    assert operations[0]["where"] == where
    assert operations[0]["confidence"] >= 0.9
    assert 0.8 * LEAK_BYTES < operations[0]["bytes_per_item"] < 1.5 * LEAK_BYTES
    assert [trend["subject"] for trend in report["trends"]] == ["total", "worker 0", "worker 1"]
    told = [row for row in bed.run("events", "--json", "--limit", "1000").rows if row["kind"] == "leak"]
    assert [row["figures"]["recipe"] for row in told] == ["leaking"]
    assert "misbehave.leak leaks" in bed.run("leaks").out


def test_history_is_there_while_it_runs_and_afterwards_and_over_a_restart(bed: Bed) -> None:
    first = bed.start("--workers", "2")
    client = bed.client()
    wait_for(lambda: client.history().at, "a first row is there")
    running = bed.run("history", "--json").last
    assert len(running["workers"]) == 2
    assert min(running["used_bytes"]) > 0
    assert [mark[1] for mark in running["marks"]][:1] == ["start"]
    first.signal(15)
    first.wait()

    stopped = bed.run("history", "--since", "1h", "--json").last
    assert stopped["at"][: len(running["at"])] == running["at"]
    bed.start("--workers", "3")
    client = bed.client()
    wait_for(lambda: len(client.history().at) > len(stopped["at"]), "the second run adds rows")
    both = bed.run("history", "--json").last
    assert both["at"][: len(stopped["at"])] == stopped["at"]
    assert len(both["workers"]) == 3
    assert [mark[1] for mark in both["marks"]].count("start") == 2
    assert "BUDGET" in bed.run("history", "--since", "1h").out
    assert bed.run("history", "--since", "soon").code == 2
