"""The supervisor's own heap: what Python and the C library have handed out in this process.

Resident memory beyond it is code, stacks, and what the allocators keep of freed memory. It is asked for when
somebody wants to know, never at a pace: `mallinfo2` walks the free lists.
"""

import ctypes
import sys

BLOCK_BYTES = 90
"""Mean size of a small object of Python's (`sys._debugmallocstats`)."""

_FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)


_mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo2 is not None:
    _mallinfo2.restype = _Mallinfo2


def own_heap_bytes() -> int:
    """Returns the bytes in use: Python's small objects, and where the C library is glibc, all that was allocated
    through it."""
    small = sys.getallocatedblocks() * BLOCK_BYTES
    if _mallinfo2 is None:
        return small
    found = _mallinfo2()
    return small + int(found.uordblks) + int(found.hblkhd)
