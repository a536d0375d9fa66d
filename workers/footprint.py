"""Memory under control, for tests of operations: taken and given back by name, looked at, compared.

    ballast = Ballast()
    before = snapshot()
    ballast.take("pixels", 50_000_000)
    assert (snapshot() - before).rss_bytes > 40_000_000
    ballast.give_back("pixels")
    assert_given_back(before, ballast)

A snapshot is taken after garbage was collected and freed memory was given back to the system: what differs is held.
"""

import gc
import sys

import msgspec

from workers.memory import OwnMemory

_PAGE_FILL = b"\xa5"
"""Not zeros: the kernel lends those without giving memory."""


class Footprint(msgspec.Struct, frozen=True):
    """What this process holds, or the difference of two such: bytes, and Python's memory blocks."""

    rss_bytes: int
    heap_bytes: int
    native_bytes: int
    blocks: int

    def __sub__(self, earlier: "Footprint") -> "Footprint":
        return Footprint(
            self.rss_bytes - earlier.rss_bytes,
            self.heap_bytes - earlier.heap_bytes,
            self.native_bytes - earlier.native_bytes,
            self.blocks - earlier.blocks,
        )


def snapshot() -> Footprint:
    """Returns what is held, after everything that can be given back was. Takes some milliseconds."""
    memory = OwnMemory()
    gc.collect()
    memory.trim()
    figures = memory.read()
    return Footprint(figures.rss_bytes, figures.heap_bytes, figures.native_bytes, sys.getallocatedblocks())


class Ballast:
    """Memory taken and given back by name. As a context manager it gives all of it back."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    @property
    def bytes(self) -> int:
        """What is held now."""
        return sum(map(len, self._held.values()))

    def take(self, name: str, size_bytes: int) -> None:
        """Takes so many bytes, resident at once. Raises ValueError for a name that holds some already."""
        if name in self._held:
            raise ValueError(f"{name!r} holds {len(self._held[name]):,} bytes already: give them back first")
        self._held[name] = _PAGE_FILL * size_bytes

    def give_back(self, name: str | None = None) -> int:
        """Gives back what a name holds, or everything; returns the bytes. Raises KeyError for an unknown name."""
        names = list(self._held) if name is None else [name]
        return sum(len(self._held.pop(each)) for each in names)

    def __enter__(self) -> "Ballast":
        return self

    def __exit__(self, *raised: object) -> None:
        self.give_back()


def assert_given_back(before: Footprint, ballast: Ballast | None = None, allowed_bytes: int = 2_000_000) -> None:
    """Asserts that a clean-up was one: no ballast is held, and the process is as large as `before`, but for
    `allowed_bytes`. The message tells what is left, and where."""
    assert ballast is None or not ballast.bytes, f"{ballast.bytes:,} bytes of ballast are still held"
    left = snapshot() - before
    assert left.rss_bytes <= allowed_bytes, (
        f"{left.rss_bytes:,} bytes were left behind ({left.heap_bytes:,} of them in the heap, {left.native_bytes:,} in "
        f"native caches, {left.blocks:,} Python blocks); {allowed_bytes:,} are allowed"
    )
