"""A collection in a worker leaves the template's objects, and so the pages it shares with it, alone."""

import os
from collections.abc import Iterator

import pytest

from protocol.messages import Ready, Recipe, Step, Trim, Trimmed
from tests.mechanism.real_pool import RealPool, real_pool, recipe

CYCLES = 10
MOST_UNSHARED_BYTES = 1_500_000
"""Measured: nothing with a frozen collector, 8.4 MB without (the headers of all objects are written to)."""

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="no smaps_rollup here")
THUMBS = Recipe(name="thumbs", steps=[Step("thumbnail", {"sizes": [256]})])


@pytest.fixture
def pool() -> Iterator[RealPool]:
    with real_pool([THUMBS, recipe("noop")]) as pool:
        yield pool


def private_bytes(pid: int) -> int:
    """What a process does not share with any other."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_"))


def test_a_collection_in_a_worker_does_not_unshare_the_template(pool: RealPool) -> None:
    worker, beside = pool.start(), pool.start(1)
    pids = [pool.receive(Ready).pid for _ in (worker, beside)]
    shared = private_bytes(pids[0])

    pool.tell(worker, Trim(cleanup=1, collect_cycles=CYCLES))
    trimmed = pool.receive(Trimmed)

    assert "gc" in " ".join(one.name for one in trimmed.freed)
    assert private_bytes(pids[0]) - shared < MOST_UNSHARED_BYTES
