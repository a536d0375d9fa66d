"""One directory of the temp root: opened and locked without following anything, put into the trash by a rename."""

import errno
import fcntl
import os
import stat

from protocol import faults
from supervisor.mechanism.temp.root import TempRoot

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HANDLE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
ALL_OF_OWNER = 0o700


class Held(Exception):
    """Somebody holds the lock of the directory: its worker, a process it left behind, or a cleaner like
    systemd-tmpfiles."""


class Changed(Exception):
    """What stands under the name is not what was there a moment ago."""


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


def lock_alone(name: str, parent: int) -> int:
    """Returns a descriptor that holds the directory's exclusive lock. Raises Held, OSError as `open_directory`."""
    descriptor = open_directory(name, parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Held(name) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def put_into_trash(root: TempRoot, name: str, descriptor: int) -> str:
    """Renames the directory that `descriptor` stands for and returns its new name.

    Raises Changed where something else stood under the name: it was renamed back, or stays in the trash as a name
    that nothing is deleted under. Raises OSError: EBUSY for a mount point.
    """
    expected = _identity(os.fstat(descriptor))
    if _identity(os.stat(name, dir_fd=root.fd, follow_symlinks=False)) != expected:
        raise Changed(name)
    trash = root.next_trash_name()
    faults.at("reap.looked")
    os.rename(name, trash, src_dir_fd=root.fd, dst_dir_fd=root.fd)
    faults.at("reap.renamed")
    if _identity(os.stat(trash, dir_fd=root.fd, follow_symlinks=False)) != expected:
        os.rename(trash, name, src_dir_fd=root.fd, dst_dir_fd=root.fd)
        raise Changed(name)
    return trash


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
