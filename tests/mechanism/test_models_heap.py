"""What an inference frees goes back to the system while a model is loaded; without one, what small photos free is
kept."""

import platform
import subprocess
import sys

import pytest

CHILD = """
import sys
from workers.memory import OwnMemory, give_back_at_once
from workers.memory_lease import Leases
from workers.models import Models

give_back_at_once()
memory = OwnMemory()
models = Models(Leases(), memory)
if sys.argv[1] != "none":
    models.use("a", object, 1)
if sys.argv[1] == "unloaded":
    models.unload("a", "test")
if sys.argv[1] == "broken":
    models.close()
    try:
        models.use("b", lambda: 1 // 0, 1)
    except ZeroDivisionError:
        pass
before = memory.rss_bytes()
pins = []
for number in range(64):
    block = bytearray(b"x") * (1 << 20)
    pins.append((block, bytes(60_000)))
pins = [small for _, small in pins]
del block
print(memory.rss_bytes() - before)
"""
BLOCKS_BYTES = 64 << 20


def kept_bytes(kind: str) -> int:
    """What a child still holds of 64 blocks of a megabyte, each followed by one of 60 KB that stays: no gap left by the
    imports takes it."""
    ended = subprocess.run([sys.executable, "-c", CHILD, kind], stdout=subprocess.PIPE, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told from which size on")
@pytest.mark.parametrize(("kind", "kept"), [("none", True), ("loaded", False), ("unloaded", True), ("broken", True)])
def test_blocks_of_a_megabyte_stay_in_the_heap_while_no_model_is_loaded(kind: str, kept: bool) -> None:
    assert (kept_bytes(kind) > BLOCKS_BYTES / 2) == kept
    assert (kept_bytes(kind) < BLOCKS_BYTES / 8) == (not kept)
