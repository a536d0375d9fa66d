"""Empties and removes a directory that lies in the trash, one entry at a time.

A tree is not descended but flattened: a directory found inside is renamed to the top of the trashed one and emptied
there, so that no depth costs descriptors or stack. The rename is also the test for mounts: the kernel refuses it
(EBUSY) for a mount point, a bind mount of the same disk included; another device is not entered either. A link is
unlinked, never followed; of a file with several names ours alone goes, and its bytes are not counted.
"""

import errno
import os
from collections.abc import Generator

from protocol import faults
from supervisor.mechanism.deleting.directory import open_directory

BLOCK_BYTES = 512
"""The unit of st_blocks (stat(2)), whatever the file system's is."""
FLAT_TRIES = 8
FAULTS_KEPT = 5


class Tally:
    """What a deletion did."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.faults: list[str] = []

    def gone(self, found: os.stat_result | None) -> None:
        """Counts a file."""
        self.files += 1
        if found is not None and found.st_nlink == 1:
            self.bytes += found.st_blocks * BLOCK_BYTES

    def failed(self, name: str, why: str | None) -> None:
        """Notes what could not be deleted; the first few are enough to tell."""
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(f"{name}: {why}")


def delete(parent: int, name: str, descriptor: int, device: int, tally: Tally) -> Generator[None, None, None]:
    """Deletes the directory `name` in `parent`, which `descriptor` stands for; yields after every entry."""
    trash = _Trash(descriptor, device, tally)
    while (yield from trash.one_pass()):
        pass
    try:
        os.rmdir(name, dir_fd=parent)
        faults.at("reap.removed")
    except OSError as error:
        tally.failed(name, error.strerror)


class _Trash:
    def __init__(self, top: int, device: int, tally: Tally) -> None:
        self._top = top
        self._device = device
        self._tally = tally
        self._number = 0

    def one_pass(self) -> Generator[None, None, bool]:
        """Deletes the files at the top and empties the directories there; its value tells whether anything moved."""
        directories: list[str] = []
        moved = False
        with os.scandir(self._top) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                else:
                    moved = self._unlink(entry, self._top) or moved
                yield
        for name in directories:
            moved = (yield from self._empty(name)) or moved
        return moved

    def _empty(self, name: str) -> Generator[None, None, bool]:
        """Its value tells whether anything moved."""
        moved = False
        place = self._flatten(name, self._top)
        if place is None:
            return False
        try:
            inside = open_directory(place, self._top)
        except OSError as error:
            self._tally.failed(name, error.strerror)
            return False
        try:
            if os.fstat(inside).st_dev != self._device:
                self._tally.failed(name, "is another file system")
                return False
            with os.scandir(inside) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        moved = self._flatten(entry.name, inside) is not None or moved
                    else:
                        moved = self._unlink(entry, inside) or moved
                    yield
        finally:
            os.close(inside)
        try:
            os.rmdir(place, dir_fd=self._top)
            faults.at("reap.emptied")
            moved = True
        except OSError as error:
            if not moved:
                self._tally.failed(name, error.strerror)
        return moved

    def _flatten(self, name: str, directory: int) -> str | None:
        """Renames a directory to the top; None where it cannot be: it is a mount point, or others' work."""
        for _ in range(FLAT_TRIES):
            self._number += 1
            place = f".flat-{self._number}"
            try:
                os.rename(name, place, src_dir_fd=directory, dst_dir_fd=self._top)
                faults.at("reap.flattened")
                return place
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue  # the worker used that very name
            except FileNotFoundError:
                return None
            except PermissionError as error:
                reason = error.strerror
                try:
                    os.close(open_directory(name, directory))  # makes a read-only directory writable
                    os.rename(name, place, src_dir_fd=directory, dst_dir_fd=self._top)
                    return place
                except OSError:
                    self._tally.failed(name, reason)
                    return None
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    continue
                self._tally.failed(name, error.strerror)
                return None
        self._tally.failed(name, "no name is free for it")
        return None

    def _unlink(self, entry: os.DirEntry[str], directory: int) -> bool:
        try:
            found = entry.stat(follow_symlinks=False)
            os.unlink(entry.name, dir_fd=directory)
            faults.at("reap.unlinked")
        except FileNotFoundError:
            return False
        except OSError as error:
            self._tally.failed(entry.name, error.strerror)
            return False
        self._tally.gone(found)
        return True
