"""Memory taken away while a batch runs, in a real memory group: by a lowered limit, by a neighbour."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from protocol.client import Client
from supervisor.policy.sizes import MB
from tests.end_to_end.bed import Bed, make_bed, settled, wait_for
from tests.end_to_end.groups import MemoryGroup, memory_group

LIMIT_BYTES = 512 << 20
LOWERED_BYTES = 300 << 20
NEIGHBOUR_BYTES = 200 * MB
NEIGHBOUR = """
import sys
held = b"\\xa5" * int(sys.argv[1])
print("taken", flush=True)
sys.stdin.read()
"""
COUNT = 160


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group(LIMIT_BYTES) as made:
        yield made


@pytest.fixture
def confined(group: MemoryGroup) -> Iterator[Bed]:
    """A bed whose commands live in the group, with work that takes 25 MB an image for a moment."""
    with make_bed() as bed:
        bed.prefix = group.prefix
        swell = {"operation": "misbehave.allocate", "bytes": 25 * MB, "seconds": 0.02}
        bed.write_config(swelling=[swell, {"operation": "thumbnail", "sizes": [16]}])
        yield bed


@contextlib.contextmanager
def neighbour(group: MemoryGroup) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the same group that takes memory when it starts and lets it go when its input ends."""
    words = [*group.prefix, sys.executable, "-c", NEIGHBOUR, str(NEIGHBOUR_BYTES)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def begin(bed: Bed) -> tuple[Client, str]:
    """Starts four workers on the batch; returns when they are well at work."""
    bed.start(workers="4")
    client = bed.client()
    batch = bed.submit(client, bed.fill(COUNT), recipe="swelling")
    wait_for(lambda: settled(client.progress(batch)) >= COUNT // 10, "a tenth is done")
    return client, batch


def test_a_limit_lowered_under_load_kills_nobody_and_every_image_has_its_verdict(
    confined: Bed, group: MemoryGroup
) -> None:
    client, batch = begin(confined)
    group.set_limit(LOWERED_BYTES)
    assert settled(client.progress(batch)) < COUNT, "there is work left"
    wait_for(lambda: client.status().budget_bytes == LOWERED_BYTES, "the new limit is the budget")
    wait_for(lambda: settled(client.progress(batch)) == COUNT, "all have their verdict", 60)
    assert client.progress(batch).counts.done == COUNT
    assert group.oom_kills() == 0


def test_a_neighbour_that_takes_memory_is_made_room_for_and_what_it_lets_go_is_used_again(
    confined: Bed, group: MemoryGroup
) -> None:
    client, batch = begin(confined)
    with neighbour(group) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        wait_for(lambda: client.status().used_bytes > NEIGHBOUR_BYTES, "it counts as used")
        process.stdin.close()
        assert process.wait(30) == 0, "the kernel did not kill it"
    wait_for(lambda: settled(client.progress(batch)) == COUNT, "all have their verdict", 60)
    assert client.progress(batch).counts.done == COUNT
    wait_for(lambda: client.status().level == "normal", "it is calm again")
    assert client.status().used_bytes < LIMIT_BYTES - NEIGHBOUR_BYTES
    assert group.oom_kills() == 0
