"""Small kernel files, opened once and read again and again.

Opening a file of /proc or /sys costs ten times as much as reading it, and a kept-open /proc/PID file
stays bound to its process: it can never tell of another one that was given the same pid.
"""

import os

_READ_BYTES = 16_384
"""A v2 memory.stat takes some 2 KB, /proc/meminfo 1.5 KB, /proc/PID/status 1.5 KB."""


class KeptFile:
    """A kernel file that is read from its start each time.

    Raises OSError when it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, size: int = _READ_BYTES) -> bytes:
        """The content in one pread. Raises OSError when what it tells about is gone (ESRCH, ENODEV)."""
        return os.pread(self._fd, size, 0)

    def read_all(self) -> bytes:
        """The content of a file that the kernel hands out page by page, as /proc/vmstat."""
        parts: list[bytes] = []
        offset = 0
        while part := os.pread(self._fd, _READ_BYTES, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close; harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_kept(path: str) -> KeptFile | None:
    """The file, or None where there is none or it may not be read."""
    try:
        return KeptFile(path)
    except OSError:
        return None


def read_text(path: str) -> str | None:
    """The whole of a file that is read once, or None where there is none; bytes that are not UTF-8 survive."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def figure(content: bytes, name: bytes) -> int | None:
    """The number after `name` at the start of a line, as in `oom_kill 3` or `VmSwap:  12 kB`; None: no such line."""
    if content.startswith(name):
        start = 0
    else:
        start = content.find(b"\n" + name) + 1
        if start == 0:
            return None
    words = content[start + len(name) : start + len(name) + 48].split(None, 1)
    return int(words[0]) if words and words[0].isdigit() else None
