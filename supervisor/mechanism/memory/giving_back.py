"""The supervisor's own memory: kept small, and given back when there is nothing to do.

glibc makes an arena a thread and keeps what was freed for later. A burst of submissions passes through three
threads here (loop, journal, cache), and would leave each with its own high-water mark for ever.
"""

import ctypes
from collections.abc import Callable
from typing import Any

_M_ARENA_MAX = -8  # malloc.h
ARENAS = 2
"""One for the loop, one for the others: they hardly ever allocate at the same time, being Python."""


def share_arenas() -> None:
    """Bounds the number of arenas; before there are threads. Does nothing where the C library has no arenas."""
    mallopt = _libc_function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Returns freed memory to the system; costs some milliseconds, so not in the loop's thread."""
    trim = _libc_function("malloc_trim")
    if trim is not None:
        trim(0)


def _libc_function(name: str) -> Callable[..., Any] | None:
    found: Callable[..., Any] | None = getattr(ctypes.CDLL(None), name, None)
    return found
