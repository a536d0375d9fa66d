"""Blobs: outputs too large for the index, as files that appear complete or not at all.

A blob's name is its address: the SHA-256 of the image it was made from, the first digits of the step's key, and
the output's number in the entry. So a blob has exactly one owner: nothing is counted, and whether it is an
orphan is one look into the index. Two levels of directories (256 x 16) keep each below a few hundred names.

It is written nameless (O_TMPFILE) and linked, or, where a file system has no nameless files, under a dot-name
and renamed. Nothing is synced: what a power cut takes, the checksum finds. The first blob of an entry carries
the entry's description in an extended attribute, or in a file beside it where there are none.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator

from protocol import faults
from supervisor.mechanism.cache.copying import Cloner, read_whole, write_whole
from supervisor.mechanism.cache.records import CHECK_BYTES, check_of

ATTRIBUTE = "user.gallery-supervisor.entry"
ATTRIBUTE_LIMIT = 3000
"""ext4 keeps all attributes of a file in one block of 4 KiB."""
ABOUT_ENDING = ".about"
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EPERM)
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_NO_BLOB = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_STEP_DIGITS = 16
_CHUNK = 1 << 20


class Blobs:
    """The files below `directory`, which is made with its rights for the owner alone."""

    def __init__(self, directory: str, cloner: Cloner) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.directory = directory
        self._cloner = cloner
        self._made: set[str] = set()

    def name(self, content: bytes, step_key: bytes, number: int) -> str:
        """Returns a blob's file name."""
        return f"{content.hex()}-{step_key.hex()[:_STEP_DIGITS]}-{number}"

    def path(self, name: str) -> str:
        """Returns where the blob of that name is."""
        return os.path.join(self.directory, name[:2], name[2], name)

    def publish(self, name: str, size_bytes: int, *, source: int | None = None, content: bytes | None = None) -> bytes:
        """Keeps `content`, or the open file `source`, as this blob; returns the checksum.

        Raises OSError where the disk refuses, ValueError where there are not `size_bytes` of it.
        """
        if content is not None and len(content) != size_bytes:
            raise ValueError(f"{len(content):,} bytes, not {size_bytes:,}")
        final = self.path(name)
        directory = self._directory_of(final)
        descriptor, partial = self._create(directory, name)
        try:
            if source is not None:
                self._cloner.copy(source, descriptor, size_bytes, content)
            else:
                assert content is not None, "neither a source nor its content"
                write_whole(descriptor, content)
            check = check_of(content) if content is not None else _check(descriptor, size_bytes)
            faults.at("blob.written")
            self._link(descriptor, partial, final)
            faults.at("blob.linked")
            return check
        except BaseException:
            if partial:
                _forget(partial)
            raise
        finally:
            os.close(descriptor)

    def describe(self, name: str, about: bytes) -> None:
        """Gives a published blob the description of its entry. Raises OSError where the disk refuses."""
        path = self.path(name)
        if len(about) <= ATTRIBUTE_LIMIT:
            try:
                os.setxattr(path, ATTRIBUTE, about, follow_symlinks=False)
                faults.at("blob.described")
                return
            except OSError as error:
                if error.errno not in _NO_ATTRIBUTES:
                    raise
        beside = path + ABOUT_ENDING
        partial = os.path.join(os.path.dirname(path), "." + os.path.basename(beside))
        with open(partial, "wb") as file:
            file.write(about)
        os.rename(partial, beside)
        faults.at("blob.described")

    def description(self, name: str) -> bytes | None:
        """Returns what the blob says of its entry, None where it says nothing."""
        path = self.path(name)
        try:
            return os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
        except OSError:
            pass  # no attributes here, or too long a description: it is beside the blob
        try:
            with open(path + ABOUT_ENDING, "rb") as file:
                return file.read(1 << 20)
        except OSError:
            return None

    def open(self, name: str, size_bytes: int) -> int:
        """Returns a descriptor of the blob. Raises ValueError when it is gone or of another size or kind, OSError
        where the disk refuses."""
        try:
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _NO_BLOB:
                raise ValueError(f"the blob {name} cannot be opened: {error.strerror}") from error
            raise
        found = os.fstat(descriptor)
        if found.st_size != size_bytes or not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise ValueError(f"the blob {name} has {found.st_size:,} bytes, not {size_bytes:,}")
        return descriptor

    def sound(self, name: str, size_bytes: int, check: bytes) -> bool:
        """Tells whether the blob is there, whole and unaltered; reads all of it."""
        try:
            descriptor = self.open(name, size_bytes)
        except (OSError, ValueError):
            return False
        try:
            return _check(descriptor, size_bytes) == check
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Deletes a blob; one that is gone already is no fault."""
        path = self.path(name)
        _forget(path)
        if name.endswith("-0"):
            _forget(path + ABOUT_ENDING)

    def directories(self, after: str = "") -> Iterator[str]:
        """Yields the directories that hold blobs, in order, after the one named (`ab/c`)."""
        for first in sorted(_subdirectories(self.directory)):
            for second in sorted(_subdirectories(os.path.join(self.directory, first))):
                if (place := f"{first}/{second}") > after:
                    yield place

    def names_in(self, place: str) -> list[tuple[str, float]]:
        """Returns (name, mtime) of the files of a directory that `directories` yielded."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(self.directory, place)) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_mtime))
        return found

    def remove_stray(self, place: str, file: str) -> None:
        """Deletes a file that is no blob of ours from a directory of ours."""
        _forget(os.path.join(self.directory, place, file))

    def _directory_of(self, final: str) -> str:
        directory = os.path.dirname(final)
        if directory not in self._made:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._made.add(directory)
        return directory

    def _create(self, directory: str, name: str) -> tuple[int, str]:
        """Returns a new file's descriptor, and its name where it had to have one."""
        if hasattr(os, "O_TMPFILE"):
            try:
                return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), ""
            except OSError as error:
                if error.errno not in _NO_NAMELESS:
                    raise
                if error.errno == errno.ENOENT:  # somebody tidied up: make it again
                    os.makedirs(directory, mode=0o700, exist_ok=True)
        partial = os.path.join(directory, f".{name}.{os.getpid()}")
        _forget(partial)
        return os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), partial

    def _link(self, descriptor: int, partial: str, final: str) -> None:
        """Gives the file its name; what had that name is an orphan of ours, or the same once more."""
        if partial:
            os.rename(partial, final)
            return
        nameless = f"/proc/self/fd/{descriptor}"
        try:
            os.link(nameless, final, src_dir_fd=descriptor)  # a directory given: linkat, which follows /proc's link
        except FileExistsError:
            partial = os.path.join(os.path.dirname(final), f".{os.path.basename(final)}.{os.getpid()}")
            _forget(partial)
            os.link(nameless, partial, src_dir_fd=descriptor)
            os.rename(partial, final)


def parse_name(name: str) -> tuple[bytes, str, int] | None:
    """Returns (content, first digits of the step's key, number) of a blob's name, None for any other name."""
    parts = name.split("-")
    if len(parts) != 3 or len(parts[0]) != 64 or len(parts[1]) != _STEP_DIGITS or not parts[2].isdigit():
        return None
    try:
        return bytes.fromhex(parts[0]), parts[1], int(parts[2])
    except ValueError:
        return None


def _check(descriptor: int, size_bytes: int) -> bytes:
    digest = hashlib.sha256()
    for chunk in read_whole(descriptor, size_bytes, _CHUNK):
        digest.update(chunk)
    return digest.digest()[:CHECK_BYTES]


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:  # nobody but us has a right to be here: it is in the way of a blob
        shutil.rmtree(path, ignore_errors=True)


def _subdirectories(directory: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []
