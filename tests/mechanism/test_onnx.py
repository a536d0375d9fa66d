"""The runtime of models: what an inference frees goes back to the system."""

import platform
import subprocess
import sys
from importlib.util import find_spec

import pytest

CHILD = """
import sys
from workers import onnx
from workers.memory import OwnMemory, give_back_at_once

give_back_at_once()
if sys.argv[1] == "model":
    onnx.runtime()
memory = OwnMemory()
before = memory.rss_bytes()
pins = []
for number in range(64):
    block = bytearray(b"x") * (1 << 20)
    pins.append((block, bytes(4_000)))
pins = [small for _, small in pins]
del block
print(memory.rss_bytes() - before)
"""
BLOCKS_BYTES = 64 << 20


def kept_bytes(kind: str) -> int:
    """What a child still holds of 64 blocks of a megabyte, each followed by a small one that stays."""
    ended = subprocess.run([sys.executable, "-c", CHILD, kind], stdout=subprocess.PIPE, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told from which size on")
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="not installed: the extra 'ocr'")
def test_blocks_of_a_megabyte_stay_in_the_heap_until_models_are_run() -> None:
    assert kept_bytes("none") > BLOCKS_BYTES / 2
    assert kept_bytes("model") < BLOCKS_BYTES / 8
