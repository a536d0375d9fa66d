"""Bytes from one file to another by the cheapest way there is: shared extents, inside the kernel, by hand.

Which of them two file systems can do does not change while they are mounted, so a way that was refused is not
tried again for the same pair.
"""

import errno
import fcntl
import os
from collections.abc import Iterator

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_REFUSED = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
    errno.EBADF,
)
_CHUNK = 1 << 20
_PAIRS_MAX = 1024

Pair = tuple[int, int]


class Cloner:
    """Copies whole files. Keeps which pairs of file systems refuse which way."""

    def __init__(self) -> None:
        self._no_clone: set[Pair] = set()
        self._no_range: set[Pair] = set()

    def copy(self, source: int, target: int, size_bytes: int, content: bytes | None = None) -> str:
        """Copies `size_bytes` from the start of one open file into another, empty one; returns the way taken.

        `content`: the source's bytes where they are at hand, which saves reading them again. Raises OSError, and
        ValueError when the source has not so many bytes any more.
        """
        pair = os.fstat(source).st_dev, os.fstat(target).st_dev
        if pair not in self._no_clone and self._clone(source, target, pair):
            if os.fstat(target).st_size != size_bytes:
                raise ValueError(f"the source has {os.fstat(target).st_size:,} bytes, not {size_bytes:,}")
            return "reflink"
        if content is not None:
            write_whole(target, content)
            return "copy"
        if pair not in self._no_range and self._range(source, target, size_bytes, pair):
            return "copy_file_range"
        for chunk in read_whole(source, size_bytes, _CHUNK):
            write_whole(target, chunk)
        return "copy"

    def _clone(self, source: int, target: int, pair: Pair) -> bool:
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            _remember(self._no_clone, pair)
            return False
        return True

    def _range(self, source: int, target: int, size_bytes: int, pair: Pair) -> bool:
        if not hasattr(os, "copy_file_range"):
            return False
        at = 0
        while at < size_bytes:
            try:
                copied = os.copy_file_range(source, target, size_bytes - at, at, at)
            except OSError as error:
                if error.errno not in _REFUSED or at:
                    raise
                _remember(self._no_range, pair)
                return False
            if copied == 0:
                raise ValueError(f"the source ended at {at:,} of {size_bytes:,} bytes")
            at += copied
        return True


def write_whole(target: int, content: bytes | memoryview) -> None:
    """Writes all of it."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(target, rest) :]


def read_whole(source: int, size_bytes: int, chunk_bytes: int) -> Iterator[bytes]:
    """Yields the first `size_bytes` of a file. Raises ValueError when it ends before, or goes on after them."""
    at = 0
    while at < size_bytes:
        chunk = os.pread(source, min(chunk_bytes, size_bytes - at), at)
        if not chunk:
            raise ValueError(f"the file ended at {at:,} of {size_bytes:,} bytes")
        yield chunk
        at += len(chunk)
    if os.pread(source, 1, at):
        raise ValueError(f"the file has more than {size_bytes:,} bytes")


def _remember(pairs: set[Pair], pair: Pair) -> None:
    if len(pairs) >= _PAIRS_MAX:
        pairs.clear()
    pairs.add(pair)
