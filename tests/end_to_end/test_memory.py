"""Real memory, real limits: the watch acts before the kernel must."""

from collections.abc import Iterator

import pytest

from supervisor.policy.sizes import MB
from tests.end_to_end.bed import Bed, make_bed, wait_for
from tests.end_to_end.groups import MemoryGroup, memory_group

LIMIT_BYTES = 512 << 20


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group(LIMIT_BYTES) as made:
        yield made


@pytest.fixture
def confined(group: MemoryGroup) -> Iterator[Bed]:
    """A bed whose commands live in the group; it is made up before the group is removed."""
    with make_bed() as bed:
        bed.prefix = group.prefix
        yield bed


def test_worker_that_allocates_1_gb_a_second_dies_by_our_hand_and_never_by_the_kernels(
    confined: Bed, group: MemoryGroup
) -> None:
    names = confined.fill(120)
    greedy = {
        "operation": "misbehave.allocate", "only": names[40], "bytes": 4_000 * MB, "bytes_per_second": 1_000 * MB
    }  # fmt: skip
    confined.write_config(greedy=[greedy, {"operation": "thumbnail", "sizes": [16]}])
    ended = confined.run(
        "run", confined.photos, "--out", confined.out, "--recipe", "greedy", "--json", "--workers", "4", seconds=60
    )
    assert group.oom_kills() == 0
    assert ended.code == 1, ended.err
    row = ended.last
    assert (row["items"], row["done"], row["quarantined"], row["failed"]) == (120, 119, 1, 0), ended.err
    assert row["oom_kills"] == 0 and row["kills"] == 2
    assert row["budget_bytes"] == LIMIT_BYTES and row["peak_bytes"] <= LIMIT_BYTES
    [verdict] = confined.run("results", row["batch"], "--failed", "--json").rows
    assert verdict["error"]["kind"] == "memory"
    assert len(confined.outputs()) == 119


def test_leaking_operation_is_recycled_and_everything_is_done(confined: Bed, group: MemoryGroup) -> None:
    confined.fill(150)
    leak = {"operation": "misbehave.leak", "bytes": 8 * MB}
    confined.write_config(leaking=[leak, {"operation": "thumbnail", "sizes": [16]}])
    ended = confined.run(
        "run", confined.photos, "--out", confined.out, "--recipe", "leaking", "--json", "--workers", "4", seconds=60
    )
    assert ended.code == 0, ended.err
    row = ended.last
    assert row["done"] == 150
    assert sum(row["recycles"].values()) >= 3, "1.2 GB were leaked"
    assert row["oom_kills"] == 0 == group.oom_kills()
    assert row["batch_shrinks"] >= 1
    told = {decision["kind"] for decision in confined.run("events", "--json", "--limit", "1000").rows}
    assert {"recycle", "soft_limit", "shrunk"} <= told, told


def test_lease_above_the_soft_limit_is_shrunk_and_its_rest_handed_back(bed: Bed) -> None:
    """Images in a long lease hold much for a while: the others of the lease go to the other worker. There are several,
    for one alone may be the last of its lease; each holds as much as lies in the middle of soft and recycle limit."""
    names = bed.fill(400)
    swollen = {"operation": "misbehave.allocate", "only": "p0015[0-4].jpg", "bytes": 155 * MB, "seconds": 0.6}
    slow = {"operation": "misbehave.hang", "seconds": 0.002}
    bed.write_config(swelling=[swollen, slow, {"operation": "thumbnail", "sizes": [16]}])
    bed.start(memory="600M")
    client = bed.client()
    wait_for(lambda: all(worker.soft_bytes for worker in client.status().workers), "all workers are warm")
    batch = bed.submit(client, names, recipe="swelling")
    progress = client.wait(batch, 60)
    assert progress.counts.done == 400 and progress.summary.kills == 0, progress
    told = [decision.kind for decision in client.decisions(after=0, limit=1000)]
    assert {"soft_limit", "shrunk", "handed_back", "trimmed"} <= set(told), told


def test_baseline_is_that_of_a_warm_worker_and_limits_follow_from_it(bed: Bed) -> None:
    names = bed.fill(200)
    bed.start(memory="600M")
    client = bed.client()
    client.wait(bed.submit(client, names), 30)
    status = client.status()
    for worker in status.workers:
        assert 10 * MB < worker.baseline_bytes < 120 * MB, worker
        assert worker.baseline_bytes <= worker.rss_bytes + 5 * MB
        assert worker.baseline_bytes < worker.soft_bytes < worker.hard_bytes < status.budget_bytes
        assert 0 < worker.private_bytes <= worker.rss_bytes
    assert 0 < status.used_bytes < status.budget_bytes
    assert status.level == "normal" and status.pressure == pytest.approx(status.used_bytes / status.budget_bytes, 0.01)


def test_limit_lowered_while_running_is_followed(confined: Bed, group: MemoryGroup) -> None:
    names = confined.fill(40)
    confined.start()
    client = confined.client()
    client.wait(confined.submit(client, names), 30)
    assert client.status().budget_bytes == LIMIT_BYTES
    group.set_limit(LIMIT_BYTES // 2)
    wait_for(lambda: client.status().budget_bytes == LIMIT_BYTES // 2, "the new limit is the budget")
    progress = client.wait(confined.submit(client, names, out=confined.out + "2"), 30)
    assert progress.counts.done == 40 and group.oom_kills() == 0


def test_image_that_can_never_fit_fails_with_both_figures(bed: Bed) -> None:
    from tests.galleries import write
    from workers.specimens import flat_png

    write(bed.photos, "giant.png", flat_png(9_000, 9_000, interlaced=True))
    bed.fill(5)
    ended = bed.run("run", bed.photos, "--out", bed.out, "--json", memory="200M")
    assert ended.code == 1, ended.err
    assert (ended.last["done"], ended.last["failed"]) == (5, 1), ended.err
    [verdict] = bed.run("results", ended.last["batch"], "--failed", "--json").rows
    assert verdict["error"]["kind"] == "too_large", verdict
    assert "budget of" in verdict["error"]["message"] and bed.photo("giant.png") in verdict["error"]["message"]
