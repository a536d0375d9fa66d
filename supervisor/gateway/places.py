"""Files below the allowed roots, and no others.

A path comes from outside. It is resolved as the kernel would resolve it, links and all, and what comes out must lie
below a root. Between that look and the opening somebody may put a link in the way; so the file is opened component by
component from the root's own descriptor, and a link met there is refused: what was looked at is what is opened.
"""

import os
import stat
from collections.abc import Iterable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not waiting: a pipe in a gallery must not hold the gateway."""


class Outside(Exception):
    """A path is not below an allowed root, or is nothing that may be had. The message does not tell what is there."""


class Places:
    """The allowed roots: directories as bytes, absolute. A root that is not there allows nothing until it is.

    Below `private` (the state directory) only what lies below a root inside it is allowed, whatever other root holds it
    all: the token and the queue are there.
    """

    def __init__(self, roots: Iterable[bytes], private: bytes) -> None:
        self.roots = tuple(dict.fromkeys(os.path.realpath(root) for root in roots))
        self._private = os.path.realpath(private)

    def resolve(self, path: bytes) -> bytes:
        """Returns the real path of something below a root, there or not yet there. Raises Outside."""
        if not path.startswith(b"/") or b"\0" in path or len(path) > 4096:
            raise Outside("an absolute path is needed")
        real = os.path.realpath(path)
        if self._root_of(real) is None:
            raise Outside("it is not below an allowed directory (setting http_roots)")
        return real

    def allows(self, path: bytes) -> bool:
        """Tells whether a path is below a root."""
        try:
            self.resolve(path)
        except Outside:
            return False
        return True

    def open(self, path: bytes) -> int:
        """Returns a descriptor of a regular file below a root. Raises Outside, and OSError where it cannot be read."""
        real = self.resolve(path)
        root = self._root_of(real)
        assert root is not None
        names = [name for name in real[len(root) :].split(b"/") if name]
        if not names:
            raise Outside("it is no file")
        directory = os.open(root, _DIRECTORY)
        try:
            for name in names[:-1]:
                below = os.open(name, _DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = below
            file = os.open(names[-1], _FILE, dir_fd=directory)
        finally:
            os.close(directory)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise Outside("it is no file")
        return file

    def _root_of(self, real: bytes) -> bytes | None:
        inside = _is_below(real, self._private)
        return next(
            (root for root in self.roots if _is_below(real, root) and _is_below(root, self._private) >= inside), None
        )


def _is_below(path: bytes, root: bytes) -> bool:
    return path == root or path.startswith(root if root.endswith(b"/") else root + b"/")
