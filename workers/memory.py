"""A worker's own figures of its memory, cheap enough to go with every report.

The supervisor watches from outside; these figures say what only the process itself can know: how much of
its memory Python and the C library have handed out, how much libvips holds, and how far one item's peak
went. Resident memory above their sum is what freed memory the allocators keep: that is what a trim gets.

The heap is an estimate, by its sources:

* objects up to 512 bytes: `sys.getallocatedblocks()` times BLOCK_BYTES (0.8 µs at 70,000 blocks);
* everything larger, Python's or a library's: glibc's `mallinfo2` (in use, mapped blocks included), less
  what libvips says it holds. It walks the free lists, 0.3 µs as a rule and 400 µs on a heap in pieces, so
  it is asked no oftener than MALLOC_SHARE of the time allows. Elsewhere than on glibc this part is 0.
"""

import ctypes
import gc
import os
import sys
import time
import weakref
from collections.abc import Callable

from protocol.messages import Memory

BLOCK_BYTES = 90
"""Mean size of a small object: 7.78 MB in 86,000 blocks (`sys._debugmallocstats`) with the decoders loaded."""

MALLOC_SHARE = 0.01
"""Part of the time that may go into asking the C library."""

_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


class PeakMeter:
    """The exact peak of resident memory since the last reset (VmHWM), where there is /proc; else 0.

    The lifetime peak (`ru_maxrss`) would blame every later item for the largest one. The descriptors are
    opened at once and kept: later the sandbox forbids it. 0.2 µs to reset, 2 µs to read.
    """

    def __init__(self) -> None:
        self._reset = _open(self, "/proc/self/clear_refs", os.O_WRONLY)
        self._status = _open(self, "/proc/self/status", os.O_RDONLY)

    @property
    def works(self) -> bool:
        """Tells whether the figures are real."""
        return self._reset is not None and self._status is not None

    def reset(self) -> None:
        """Sets the peak to what is resident now."""
        if self._reset is not None:
            os.pwrite(self._reset, b"5", 0)  # proc(5): 5 resets the peak resident set size

    def read(self) -> int:
        """Returns the highest resident size since the last reset, in bytes; 0 where it cannot be known."""
        if self._status is None or self._reset is None:
            return 0
        status = os.pread(self._status, 4096, 0)
        at = status.find(b"VmHWM:")
        return int(status[at + 6 : status.index(b"kB", at)]) * 1024 if at >= 0 else 0


class OwnMemory:
    """This process's figures."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._statm = _open(self, "/proc/self/statm", os.O_RDONLY)
        self._malloc_bytes = self._kept_bytes = 0
        self._malloc_due = 0.0
        self._vips_memory = _vips_function("vips_tracked_get_mem")

    def rss_bytes(self) -> int:
        """Returns the resident size, 0 where there is no /proc."""
        if self._statm is None:
            return 0
        return int(os.pread(self._statm, 128, 0).split(b" ", 2)[1]) * _PAGE_BYTES

    def read(self) -> Memory:
        """Returns the figures of now; the C library's part may be as old as MALLOC_SHARE makes it."""
        if self._vips_memory is None and "_libvips" in sys.modules:
            self._vips_memory = _vips_function("vips_tracked_get_mem")
        native = int(self._vips_memory()) if self._vips_memory is not None else 0
        blocks = sys.getallocatedblocks()
        heap = blocks * BLOCK_BYTES + max(0, self._malloc() - native)
        return Memory(self.rss_bytes(), heap, native, blocks, self._kept_bytes)

    def trim(self) -> None:
        """Gives back what can be given back: libvips' cache of operations, garbage, the C library's free memory."""
        self.drop_native_caches()
        gc.collect()
        self.trim_malloc()

    def drop_native_caches(self) -> None:
        """Empties libvips' cache of operations, where pyvips is loaded."""
        vips = sys.modules.get("pyvips")
        if vips is not None:
            limit = vips.cache_get_max()
            vips.cache_set_max(0)
            vips.cache_set_max(limit)

    def trim_malloc(self) -> None:
        """Gives the C library's free memory back to the system, where it can."""
        if _malloc_trim is not None:
            _malloc_trim(0)
        self._malloc_due = 0.0

    def _malloc(self) -> int:
        now = self._clock()
        if now >= self._malloc_due and _mallinfo2 is not None:
            found = _mallinfo2()
            self._malloc_bytes = found.uordblks + found.hblkhd
            self._kept_bytes = found.fordblks
            cost = self._clock() - now
            self._malloc_due = now + cost / MALLOC_SHARE
        return self._malloc_bytes


_MALLINFO2 = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO2)


def _libc_function(name: str, result: type) -> Callable[..., "_Mallinfo2"] | None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function.restype = result
    return function


_mallinfo2 = _libc_function("mallinfo2", _Mallinfo2)
_malloc_trim = _libc_function("malloc_trim", ctypes.c_int)


def handed_out_bytes() -> int:
    """Returns what the C library has handed out (mapped blocks included) and not got back; 0 elsewhere than on
    glibc."""
    if _mallinfo2 is None:
        return 0
    found = _mallinfo2()
    return int(found.uordblks + found.hblkhd)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MAPPED_FROM_BYTES = 2 * 1024 * 1024
"""A mapped block costs 0.8 µs a page each time: at 128 KB, glibc's own start, a third of what a small photo takes
(1,050 page faults; at 2 MB 30 to 100), and as much is held between items."""


def give_back_at_once(from_bytes: int = _MAPPED_FROM_BYTES) -> None:
    """Has the C library return every block from that size on to the system as soon as it is freed, and keep to one
    heap, of which no more than that stays free at its end. May be called again with another size.

    By default glibc raises both thresholds to the largest block it saw freed (up to 32 and 64 MB): after one large
    image a worker holds that much for nothing, which counts against the budget and hides what the next image takes.
    Measured over 192 images under `thumbs`: at most 58 MB held between two items instead of 159, highest peak 246 MB
    instead of 320. Does nothing where the library is another.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_MMAP_THRESHOLD, from_bytes)
        tune(_M_TRIM_THRESHOLD, from_bytes)
        tune(_M_ARENA_MAX, 1)


def _vips_function(name: str) -> Callable[[], int] | None:
    """Finds a function of the libvips that pyvips has loaded: looked up through its extension module, which is
    linked to it. None before pyvips is loaded, and where it has no such module."""
    module = sys.modules.get("_libvips")
    path = getattr(module, "__file__", None)
    if path is None:
        return None
    try:
        function = getattr(ctypes.CDLL(path), name)
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_size_t
    found: Callable[[], int] = function
    return found


def _open(owner: object, path: str, flags: int) -> int | None:
    """Opens a file for as long as its owner lives."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None
    weakref.finalize(owner, os.close, descriptor).atexit = False
    return descriptor
