"""An output from the cache, under its final name: complete or not at all, never over what is not ours.

The rules are those of a worker's own outputs. The file is written nameless in the output's directory and linked,
which fails where anything stands under the name: nothing half-made ever has a name. Only to replace (allowed by
--overwrite, or known to be ours), and where a file system has no nameless files, a dot-name is needed; it is
noted in a small file of ours before it exists, as the flight recorder notes a worker's, and cleaned up after a
death.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Literal

from protocol import faults
from supervisor.mechanism.cache.copying import Cloner, read_whole, write_whole

NOTE_FILE = "delivering"
Delivered = Literal["written", "same", "occupied"]
_NOTE_BYTES = 8192
_RENAME_NOREPLACE = 1  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV)
_libc = ctypes.CDLL(None, use_errno=True)
_renameat2: Callable[..., int] | None = getattr(_libc, "renameat2", None)


class Deliverer:
    """Delivers one output at a time. `state_token` marks unfinished files as this state directory's."""

    def __init__(self, directory: str, state_token: str, cloner: Cloner) -> None:
        self._cloner = cloner
        self._prefix = f".gs-{state_token}-".encode()
        self._note = os.open(os.path.join(directory, NOTE_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._clean_up()

    def close(self) -> None:
        """Gives back the note's descriptor."""
        os.close(self._note)

    def deliver(
        self,
        final: bytes,
        content: bytes | None,
        source: int | None,
        size_bytes: int,
        *,
        replace: bool,
        link: bytes = b"",
    ) -> Delivered:
        """Puts `content`, or the open file `source`, under the name `final`.

        With `link`, a name of the source, it is hard-linked where that can be. Returns `same` when exactly that
        stands there already, `occupied` when something else does. Raises OSError where the disk refuses.
        """
        try:
            if link and self._hard_link(link, final, replace=replace):
                return "written"
            descriptor, partial = self._create(final)
            try:
                self._fill(descriptor, content, source, size_bytes)
                faults.at("deliver.written")
                self._settle(descriptor, partial, final, replace=replace)
            except BaseException:
                if partial:
                    _forget(partial)
                raise
            finally:
                os.close(descriptor)
                self._announce(b"")
        except FileExistsError:
            return "same" if _same(final, content, source, size_bytes) else "occupied"
        except (IsADirectoryError, NotADirectoryError):
            return "occupied"
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP):
                return "occupied"
            raise
        return "written"

    def _fill(self, descriptor: int, content: bytes | None, source: int | None, size_bytes: int) -> None:
        if source is not None:
            self._cloner.copy(source, descriptor, size_bytes, content)
        else:
            assert content is not None
            write_whole(descriptor, content)

    def _create(self, final: bytes) -> tuple[int, bytes]:
        directory = os.path.dirname(final)
        for again in (False, True):
            try:
                if hasattr(os, "O_TMPFILE"):
                    return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), b""
            except OSError as error:
                if error.errno not in _NO_NAMELESS:
                    raise
            try:
                partial = self._announced(final)
                _forget(partial)
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                return os.open(partial, flags, 0o666), partial
            except FileNotFoundError:
                if again:
                    raise
                self._announce(b"")
                os.makedirs(directory, exist_ok=True)
        raise AssertionError("unreachable")

    def _settle(self, descriptor: int, partial: bytes, final: bytes, *, replace: bool) -> None:
        if not partial:
            nameless = f"/proc/self/fd/{descriptor}"
            try:
                os.link(nameless, final, src_dir_fd=descriptor)
                faults.at("deliver.linked")
                return
            except FileExistsError:
                if not replace:
                    raise
            partial = self._announced(final)
            _forget(partial)
            os.link(nameless, partial, src_dir_fd=descriptor)
        faults.at("deliver.linked")
        try:
            _rename(partial, final, replace=replace)
        except BaseException:
            _forget(partial)
            raise
        faults.at("deliver.renamed")

    def _hard_link(self, source: bytes, final: bytes, *, replace: bool) -> bool:
        """Returns False where links cannot be made. Raises FileExistsError."""
        try:
            os.link(source, final, follow_symlinks=False)
            return True
        except FileExistsError:
            if not replace:
                raise
        except FileNotFoundError:
            os.makedirs(os.path.dirname(final), exist_ok=True)
            return self._hard_link(source, final, replace=replace) if os.path.lexists(source) else False
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        partial = self._announced(final)
        _forget(partial)
        os.link(source, partial, follow_symlinks=False)
        try:
            os.rename(partial, final)
        finally:
            _forget(partial)  # still there where both names were of the same file: rename(2) does nothing then
            self._announce(b"")
        return True

    def _announced(self, final: bytes) -> bytes:
        """Notes the dot-name of an output and returns it; the same output always has the same."""
        name = os.path.basename(final)
        partial = os.path.join(os.path.dirname(final), self._prefix + hashlib.sha256(name).hexdigest()[:16].encode())
        self._announce(partial)
        faults.at("deliver.announced")
        return partial

    def _announce(self, partial: bytes) -> None:
        os.pwrite(self._note, len(partial).to_bytes(4, "big") + partial[: _NOTE_BYTES - 4], 0)

    def _clean_up(self) -> None:
        """Deletes the unfinished output that the note names, if the name is one of ours."""
        raw = os.pread(self._note, _NOTE_BYTES, 0)
        partial = raw[4 : 4 + int.from_bytes(raw[:4], "big")]
        if os.path.basename(partial).startswith(self._prefix) and b"\0" not in partial:
            with contextlib.suppress(OSError):
                os.unlink(partial)
        self._announce(b"")


def _rename(partial: bytes, final: bytes, *, replace: bool) -> None:
    """Renames; without `replace` unless `final` exists in any form. Raises FileExistsError then."""
    if replace:
        os.rename(partial, final)
        return
    if _renameat2 is not None:
        if _renameat2(_AT_FDCWD, partial, _AT_FDCWD, final, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise OSError(number, os.strerror(number), partial, None, final)
    try:
        os.link(partial, final, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(final):  # no links here (FAT): the one file system where a race is left
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final) from None
        os.rename(partial, final)
        return
    os.unlink(partial)


def _same(final: bytes, content: bytes | None, source: int | None, size_bytes: int) -> bool:
    """Whether a regular file (no link to one) holds exactly that."""
    try:
        descriptor = os.open(final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
            return False
        if content is not None:
            return b"".join(read_whole(descriptor, size_bytes, 1 << 20)) == content
        assert source is not None
        ours, theirs = (read_whole(one, size_bytes, 1 << 20) for one in (source, descriptor))
        return all(a == b for a, b in zip(ours, theirs, strict=True))
    except (OSError, ValueError):
        return False
    finally:
        os.close(descriptor)


def _forget(path: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
