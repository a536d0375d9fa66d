"""The content of a file that may be a copy of a known one, read in slices so that nobody waits for long."""

import hashlib
import os

from supervisor.mechanism.cache.finder import HashLater
from supervisor.policy.cache.asked import FileStamp

SLICE_BYTES = 8 << 20


class Hashing:
    """One file on its way to its hash. `step` until it is `done`, then `content` is the hash or None."""

    def __init__(self, later: HashLater) -> None:
        self.later = later
        self.content: bytes | None = None
        self.done = False
        self._digest = hashlib.sha256()
        self._at = 0
        self._descriptor = -1

    def step(self) -> None:
        """Reads a slice. A file that cannot be read, or is not what it was, ends without a hash."""
        try:
            if self._descriptor < 0:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
                self._descriptor = os.open(self.later.wanted.path, flags)
                if self._stamp() != self.later.stamp:
                    self.close()
                    return
            chunk = os.pread(self._descriptor, SLICE_BYTES, self._at)
            self._digest.update(chunk)
            self._at += len(chunk)
            if self._at > self.later.stamp.size_bytes:
                self.close()
            elif not chunk:
                if self._stamp() == self.later.stamp and self._at == self.later.stamp.size_bytes:
                    self.content = self._digest.digest()
                self.close()
        except OSError:
            self.close()

    def close(self) -> None:
        """Gives back the file; it is done."""
        self.done = True
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _stamp(self) -> FileStamp:
        found = os.fstat(self._descriptor)
        return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
