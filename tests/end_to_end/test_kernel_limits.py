"""The kernel's own limit of a worker, in real control groups: never needed while we look, and right when we do not."""

import os
import signal
from pathlib import Path

import pytest

from supervisor.policy.sizes import MB
from tests.end_to_end.bed import lives, make_bed, wait_for
from tests.end_to_end.groups import memory_group


def test_worker_that_outgrows_its_group_while_nobody_looks_is_taken_by_the_kernel_and_blamed() -> None:
    with memory_group(512 << 20) as group, make_bed() as bed:
        if group.version != 1:
            pytest.skip("groups of version 2 are made where they are delegated and nobody else lives in them")
        bed.prefix = group.prefix
        names = bed.fill(12)
        greedy = {"operation": "misbehave.allocate", "only": names[8], "bytes": 2_000 * MB, "bytes_per_second": 60 * MB}
        bed.write_config(greedy=[greedy, {"operation": "thumbnail", "sizes": [16]}])
        supervisor = bed.start("--kernel-limits", "on")
        client = bed.client()
        batch = bed.submit(client, names, recipe="greedy")
        pid = wait_for(
            lambda: next((w.pid for w in client.status().workers if (w.current or "").endswith(names[8])), None),
            "a worker grows",
        )
        own = [name for name in os.listdir(group.path) if name.startswith("gallery-worker-")]
        members = {name: Path(group.path, name, "cgroup.procs").read_text().split() for name in own}
        assert [str(pid)] in members.values(), members
        supervisor.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: not lives(pid or 0), "the kernel has taken it")
        finally:
            supervisor.signal(signal.SIGCONT)
        progress = client.wait(batch, 60)
        assert (progress.counts.done, progress.counts.quarantined) == (11, 1), progress
        deaths = [d.figures["cause"] for d in client.decisions(after=0, limit=1000) if d.kind == "death"]
        assert deaths[0] == "kernel_oom" and progress.summary.oom_kills == 1, deaths
        assert bed.results(client, batch)[names[8]]["error"]["kind"] == "memory"
        assert client.status().budget_bytes == 512 << 20
        client.close()
        assert bed.run("stop").code == 0
        supervisor.wait()
        left = [name for name in os.listdir(group.path) if name.startswith("gallery-worker-")]
        assert left == [], "the groups go with their workers"
