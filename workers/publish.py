"""Outputs appear complete or not at all, under their final names, and never over what is not ours.

An output is written under a dot-name in its own directory (the flight recorder names it before it exists,
so that a death in between leaves nothing unknown) and renamed. The name of the unfinished file is the same
for the same output, so that a second attempt cleans up after the first.
"""

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Protocol

from protocol import faults, paths
from workers.errors import MachineTrouble, Verdict

_RENAME_NOREPLACE = 1  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_libc = ctypes.CDLL(None, use_errno=True)
_renameat2: Callable[..., int] | None = getattr(_libc, "renameat2", None)


class Announcer(Protocol):
    """The part of the flight recorder that is used here."""

    def partial(self, path: bytes) -> None:
        """Names the unfinished output about to be created; empty when there is none."""


class Publisher:
    """Writes the outputs of one item below `out`. `replace`: what stands there may be replaced."""

    def __init__(self, out: bytes, stem: str, state_token: str, announcer: Announcer, *, replace: bool) -> None:
        """`stem` is the token of the path below `out`; `state_token` marks unfinished files as this state's.

        Raises Verdict io when the stem leads outside `out`.
        """
        raw = paths.from_token(stem)
        parts = raw.split(b"/")
        if raw.startswith(b"/") or not raw or b"\0" in raw or any(part in (b"", b".", b"..") for part in parts):
            raise Verdict(
                "io", f"the output name {shown(raw)!r} leads outside {shown(out)}; submit it with a --base above it"
            )
        self._stem = os.path.join(out, raw)
        self._directory = os.path.dirname(self._stem)
        self._prefix = b".gs-" + state_token.encode("ascii") + b"-"
        self._announcer = announcer
        self._replace = replace
        self.written: list[str] = []

    def publish(self, label: str, extension: str, content: bytes | memoryview) -> bytes:
        """Writes `content` as <stem>.<label>.<extension> and returns the final path.

        Raises Verdict io when something else stands there or the name is too long, MachineTrouble when the
        machine cannot write it.
        """
        final = b".".join((self._stem, label.encode("utf-8"), extension.encode("ascii")))
        name = os.path.basename(final)
        partial = os.path.join(self._directory, self._prefix + hashlib.sha256(name).hexdigest()[:16].encode("ascii"))
        self._announcer.partial(partial)
        faults.at("publish.announced")
        try:
            self._write(partial, content)
            faults.at("publish.written")
            self._settle(partial, final, content)
            faults.at("publish.renamed")
        except OSError as error:
            _forget(partial)
            raise _trouble(error, final, name) from error
        except BaseException:
            _forget(partial)
            raise
        finally:
            self._announcer.partial(b"")
        faults.at("publish.withdrawn")
        self.written.append(paths.to_token(final))
        return final

    def _write(self, partial: bytes, content: bytes | memoryview) -> None:
        descriptor = self._create(partial)
        faults.at("publish.created")
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)

    def _create(self, partial: bytes) -> int:
        """A left-over of an earlier attempt is unlinked, not reused: somebody may still hold it open."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(partial, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(self._directory, exist_ok=True)
        except FileExistsError:
            os.unlink(partial)
        return os.open(partial, flags, 0o666)

    def _settle(self, partial: bytes, final: bytes, content: bytes | memoryview) -> None:
        if self._replace:
            os.rename(partial, final)
            return
        try:
            rename_new(partial, final)
        except FileExistsError:
            if not _same(final, content):
                raise Verdict(
                    "io", f"{shown(final)} exists and was not made by this supervisor; use --overwrite or another --out"
                ) from None
            _forget(partial)


def rename_new(partial: bytes, final: bytes) -> None:
    """Renames unless `final` exists in any form. Raises FileExistsError then, OSError when it cannot be done."""
    if _renameat2 is not None:
        if _renameat2(_AT_FDCWD, partial, _AT_FDCWD, final, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number), partial, None, final)
    try:
        os.link(partial, final, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (*_NOT_SUPPORTED, errno.EPERM, errno.EMLINK):
            raise
        if os.path.lexists(final):  # no links here (FAT): the one file system where a race is left
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final) from None
        os.rename(partial, final)
        return
    os.unlink(partial)


def shown(path: bytes) -> str:
    """Returns a path as messages name it."""
    return path.decode("utf-8", "replace")


def _same(final: bytes, content: bytes | memoryview) -> bool:
    """Whether a regular file (no link to one) holds exactly `content`. A directory raises IsADirectoryError."""
    found = os.lstat(final)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), final)
    if not stat.S_ISREG(found.st_mode) or found.st_size != len(content):
        return False
    try:
        descriptor = os.open(final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        return file.read(len(content) + 1) == content


def _forget(partial: bytes) -> None:
    try:
        os.unlink(partial)
    except OSError:
        pass  # it was never made, or the directory is beyond reach: nothing that can be done here


def _trouble(error: OSError, final: bytes, name: bytes) -> Verdict | MachineTrouble:
    """By whose fault an output cannot be written: its name's (the item fails) or the machine's (it waits)."""
    if error.errno == errno.ENAMETOOLONG:
        figures = f"its name has {len(name)} bytes and its path {len(final)}; file systems allow 255 and 4,095"
        return Verdict("io", f"the output {shown(final)} cannot be made: {figures}")
    if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
        return Verdict("io", f"{shown(final)} is a directory; remove it or use another --out")
    if error.errno == errno.ENOTDIR or isinstance(error, FileExistsError):
        return Verdict("io", f"the output {shown(final)} cannot be made: a file stands where a directory is needed")
    return MachineTrouble(f"the output {shown(final)} cannot be written: {error.strerror or error}")
