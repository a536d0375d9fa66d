"""One directory of the temp root: locked without following anything, put into the trash by a rename."""

import fcntl
import os

from protocol import faults
from supervisor.mechanism.deleting.directory import open_directory
from supervisor.mechanism.temp.root import TempRoot


class Held(Exception):
    """Somebody holds the lock of the directory: its worker, a process it left behind, or a cleaner like
    systemd-tmpfiles."""


class Changed(Exception):
    """What stands under the name is not what was there a moment ago."""


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
