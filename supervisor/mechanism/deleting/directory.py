"""Opens a directory by descriptor, without following anything."""

import errno
import os
import stat

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HANDLE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
ALL_OF_OWNER = 0o700


def open_directory(name: str, parent: int) -> int:
    """Returns a descriptor of a directory in `parent`, readable and writable for us even if its mode forbids it.

    Raises OSError: FileNotFoundError, NotADirectoryError for anything else but a directory, links included.
    """
    try:
        descriptor = os.open(name, _OPEN, dir_fd=parent)
    except PermissionError:
        _permit(name, parent)
        descriptor = os.open(name, _OPEN, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "is a link", name) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if mode & ALL_OF_OWNER != ALL_OF_OWNER:
        try:
            os.fchmod(descriptor, stat.S_IMODE(mode) | ALL_OF_OWNER)
        except OSError:
            pass  # not ours to change: what cannot be deleted in it is told by who tries
    return descriptor


def _permit(name: str, parent: int) -> None:
    """A directory that not even its owner may open. Through a handle: a link put in its place is not followed."""
    handle = os.open(name, _HANDLE, dir_fd=parent)
    try:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            os.chmod(f"/proc/self/fd/{handle}", ALL_OF_OWNER)
    finally:
        os.close(handle)
