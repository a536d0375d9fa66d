"""What is learned of memory, and what no worker's part is enough for: no loop, no stall, no wrong verdict."""

import os
from typing import NamedTuple

import pytest

from supervisor.policy.sizes import MB
from tests.end_to_end.bed import Bed, wait_for
from tests.galleries import write
from workers.specimens import flat_png

RAISE = "raise --memory or lower --workers"


def heavy(held_bytes: int) -> list[dict[str, object]]:
    """A recipe whose workers hold so much from their first item on, as a model would make them."""
    pause = {"operation": "misbehave.hang", "seconds": 0.005}
    return [{"operation": "misbehave.hold", "bytes": held_bytes}, pause, {"operation": "thumbnail", "sizes": [16]}]


@pytest.mark.parametrize("memory", ["600M", "450M"])
def test_recipe_whose_warm_baseline_is_above_the_threshold_neither_loops_nor_stalls(bed: Bed, memory: str) -> None:
    names = bed.fill(120)
    bed.write_config(heavy=heavy(180 * MB))
    bed.start(memory=memory)
    client = bed.client()
    batch = bed.submit(client, names, recipe="heavy")
    notes: set[str] = set()

    def over() -> bool:
        notes.update(worker.note for worker in client.status().workers if worker.note)
        return client.progress(batch).state == "finished"

    wait_for(over, "the batch is finished", 60)
    progress = client.progress(batch)
    assert progress.counts.done == 120, progress
    # Each worker may die once before it is known what the recipe makes it hold, and be replaced once for its items.
    ends = progress.summary.kills + sum(progress.summary.recycles.values())
    assert ends <= 6 and progress.summary.oom_kills == 0, progress.summary
    notes |= {decision.message for decision in client.decisions(after=0, limit=1000) if decision.kind == "widened"}
    # Whether a worker is widened, waits, or dies once and is known then, is a matter of which report comes first;
    # that it is told at all is the policy's story. What is told says what to raise.
    told = ("its allowance is widened", "waits: a worker warm under recipe heavy holds about")
    silent = [note for note in notes if any(words in note for words in told) and RAISE not in note]
    assert silent == []


def test_recipe_that_fits_no_worker_ends_in_verdicts_that_name_memory(bed: Bed) -> None:
    names = bed.fill(3)
    bed.write_config(heavy=heavy(600 * MB))
    bed.start("--protection", "no", memory="300M")
    client = bed.client()
    batch = bed.submit(client, names, recipe="heavy")
    progress = client.wait(batch, 60)
    assert progress.counts.quarantined == 3, progress
    assert progress.summary.kills <= 2 * 3 and progress.summary.oom_kills == 0
    assert {row["error"]["kind"] for row in bed.results(client, batch).values()} == {"memory"}


def test_what_was_learned_survives_a_restart_and_damage_is_left_aside(bed: Bed) -> None:
    names = bed.fill(120)
    unknown = _first_reservation(bed, names[:40], "1", learn=names)
    learned = os.path.join(bed.state, "learned.json")
    assert os.path.getsize(learned) > 0
    known = _first_reservation(bed, names[:40], "2")
    assert known.classes and not unknown.classes
    assert 0 < known.reserved_bytes < unknown.reserved_bytes, (known, unknown)
    with open(learned, "r+b") as file:
        file.write(b"\x00nonsense")
    damaged = _first_reservation(bed, names[:40], "3")
    assert not damaged.classes and "cannot be used and is learned anew" in damaged.said


class Run(NamedTuple):
    """Of a supervisor: the classes it knew at its start, what its first lease of a warm worker reserved, its log."""

    classes: int
    reserved_bytes: int
    said: str


def _first_reservation(bed: Bed, names: list[str], out: str, learn: list[str] | None = None) -> Run:
    """Starts a supervisor, and stops it after a batch."""
    bed.write_config(slow=[{"operation": "misbehave.hang", "seconds": 0.02}, {"operation": "thumbnail", "sizes": [16]}])
    started = bed.start(memory="600M", workers="1")
    client = bed.client()
    classes = sum(bool(row.format) for row in client.memory().predictions)
    batch = bed.submit(client, names, recipe="slow", out=bed.out + out)
    reserved = 0

    def told() -> bool:
        nonlocal reserved
        [worker] = client.status().workers
        rows = [row for row in client.memory().processes if row.slot == 0]
        if not reserved and worker.items_done and rows and rows[0].reserved_bytes:
            reserved = rows[0].reserved_bytes
        return client.progress(batch).state == "finished"

    wait_for(told, "the batch is finished")
    assert reserved, "the lease of a warm worker was never seen"
    if learn is not None:
        client.wait(bed.submit(client, learn, recipe="slow", out=bed.out + out + "more"), 30)
    client.close()
    ended = bed.run("stop")
    assert ended.code == 0, ended.err
    return Run(classes, reserved, started.wait().err)


def test_giant_goes_alone_and_is_done_and_what_can_never_fit_is_named_with_both_figures(bed: Bed) -> None:
    write(bed.photos, "giant.png", flat_png(8_000, 8_000, interlaced=True))
    write(bed.photos, "beyond.png", flat_png(14_000, 14_000, interlaced=True))
    names = [*bed.fill(60), "giant.png", "beyond.png"]
    bed.start(memory="300M")
    client = bed.client()
    batch = bed.submit(client, names)
    progress = client.wait(batch, 60)
    assert (progress.counts.done, progress.counts.failed) == (61, 1), progress
    assert progress.summary.kills == 0
    rows = bed.results(client, batch)
    assert rows["giant.png"]["state"] == "done" and len(rows["giant.png"]["outputs"]) == 2
    decisions = client.decisions(after=0, limit=1000)
    assert any(d.kind == "deferred" and (d.path or "").endswith("giant.png") for d in decisions), decisions
    error = rows["beyond.png"]["error"]
    assert error["kind"] == "too_large" and "needs about" in error["message"] and "budget of 300 MB" in error["message"]
    [refused] = [d for d in decisions if d.kind == "too_large"]
    assert refused.figures["needs_bytes"] > refused.figures["room_bytes"] > 0
