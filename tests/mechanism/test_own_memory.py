"""A worker's own figures against memory that is really taken."""

import ctypes
import gc
import mmap
import os
import sys

import pytest

from supervisor.policy.sizes import MB
from tests.mechanism.real_pool import wait_until
from workers.memory import OwnMemory, PeakMeter


def spike(size_bytes: int) -> None:
    """Touches memory that goes back to the system at once."""
    with mmap.mmap(-1, size_bytes) as area:
        for at in range(0, size_bytes, mmap.PAGESIZE):
            area[at] = 1


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_peak_meter_sees_a_spike_that_is_over_and_forgets_it_on_reset() -> None:
    peak, memory = PeakMeter(), OwnMemory()
    assert peak.works
    peak.reset()
    before = memory.rss_bytes()
    spike(64 * MB)
    assert memory.rss_bytes() < before + 16 * MB, "it is over"
    assert before + 60 * MB <= peak.read() <= before + 80 * MB
    peak.reset()
    assert peak.read() < before + 16 * MB
    spike(16 * MB)
    assert before + 12 * MB <= peak.read() <= before + 32 * MB


def test_heap_counts_small_objects_and_large_ones() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    memory = OwnMemory(clock)
    memory.read()
    now += 1000.0  # the C library is asked again
    before = memory.read()
    large = bytearray(50 * MB)
    now += 1000.0
    with_large = memory.read()
    assert 45 * MB < with_large.heap_bytes - before.heap_bytes < 60 * MB
    small = [object() for _ in range(200_000)]
    with_small = memory.read()
    assert 5 * MB < with_small.heap_bytes - with_large.heap_bytes < 40 * MB
    del small, large
    gc.collect()
    now += 1000.0
    assert memory.read().heap_bytes < before.heap_bytes + 10 * MB


def test_what_the_c_library_keeps_free_is_told_apart() -> None:
    malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(("malloc", ctypes.CDLL(None)))
    free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(("free", ctypes.CDLL(None)))
    memory = OwnMemory(lambda: 0.0)  # asking takes no time: each time it is asked again
    if not memory.read().heap_bytes or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("the C library does not tell")
    pieces = [malloc(3_000) for _ in range(16_000)]
    taken = memory.read()
    for piece in pieces[::2]:  # the others between them keep these from going back
        free(piece)
    holed = memory.read()
    assert holed.kept_bytes - taken.kept_bytes > 20 * 1_000_000
    assert taken.heap_bytes - holed.heap_bytes > 20 * 1_000_000
    for piece in pieces[1::2]:
        free(piece)


def test_what_libvips_holds_is_told() -> None:
    pyvips = pytest.importorskip("pyvips")
    memory = OwnMemory()
    before = memory.read().native_bytes
    image = pyvips.Image.black(2000, 2000, bands=3).copy_memory()
    assert 11 * MB < memory.read().native_bytes - before < 20 * MB
    del image
    memory.trim()
    wait_until(lambda: memory.read().native_bytes < before + MB, "libvips' memory given back")


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed in /proc")
def test_what_was_opened_for_the_figures_is_closed_with_them() -> None:
    gc.collect()  # nothing of others goes meanwhile
    before = len(os.listdir("/proc/self/fd"))
    kept = [(OwnMemory(), PeakMeter()) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before + 3 * len(kept)
    kept.clear()
    assert len(os.listdir("/proc/self/fd")) == before
