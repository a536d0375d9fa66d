"""Outputs reach the disk before the row that says so.

A name is durable when the file's data and the directory it was renamed into are. A few files are synced one
by one; from WHOLE_FROM on, one syncfs(2) for each file system is cheaper than a journal commit of the file
system for each file. A file that is gone was deleted by someone after it was published: its verdict stands.
"""

import contextlib
import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence

from protocol.paths import from_token
from supervisor.mechanism.journal.stalls import FIRST_DELAY_SECONDS, Stalls, longer
from supervisor.policy.commands import SettleItems

WHOLE_FROM = 8

NOT_OURS = (
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV,
)  # fmt: skip
"""Nothing, or no file, stands under the name any more: waiting would not bring ours back."""


def sync_outputs(paths: Sequence[bytes]) -> None:
    """Returns when the files and their names are on the disk. Raises OSError that names the file."""
    directories = list(dict.fromkeys(os.path.dirname(path) or b"." for path in paths))
    if len(paths) > WHOLE_FROM and _syncfs is not None:
        _sync_file_systems(directories)
        return
    for path in dict.fromkeys(paths):
        try:
            _sync_one(path)
        except PermissionError:
            # A umask may make outputs that their owner cannot open: sync what they are on instead.
            if _syncfs is None:
                raise
            _sync_file_systems([os.path.dirname(path) or b"."])
    for directory in directories:
        _sync_one(directory)


def _sync_one(path: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise OSError(error.errno, error.strerror, path) from error


def _sync_file_systems(directories: Sequence[bytes]) -> None:
    assert _syncfs is not None
    done = set()
    for directory in directories:
        try:
            device = os.stat(directory).st_dev
            if device in done:
                continue
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in NOT_OURS:
                continue
            raise
        try:
            if _syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), directory)
        finally:
            os.close(descriptor)
        done.add(device)


def _find_syncfs() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    try:
        found = library.syncfs
    except AttributeError:
        return None
    found.argtypes, found.restype = [ctypes.c_int], ctypes.c_int

    def syncfs(descriptor: int) -> int:
        return int(found(descriptor))

    return syncfs


_syncfs = _find_syncfs()


def _paths(group: Sequence[SettleItems]) -> list[bytes]:
    """Returns the outputs of a group; what can be no path was never written."""
    paths = []
    for command in group:
        for settlement in command.settlements:
            for token in settlement.written:
                with contextlib.suppress(ValueError):
                    paths.append(from_token(token))
    return [path for path in paths if path and b"\0" not in path]


class SyncThread:
    """Syncs whatever settlements wait as one group, then hands them on."""

    def __init__(self, hand_on: Callable[[SettleItems], None], stalls: Stalls) -> None:
        self._hand_on = hand_on
        self._stalls = stalls
        self._changed = threading.Condition()
        self._waiting: list[SettleItems] = []
        self._closing = False
        self._patience_over = False
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)

    def start(self) -> None:
        """Begins to sync."""
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Settlements that wait to be synced."""
        return sum(len(command.settlements) for command in self._waiting)

    def submit(self, command: SettleItems) -> None:
        """Takes settlements with outputs; never blocks."""
        with self._changed:
            self._waiting.append(command)
            self._changed.notify()

    def close(self, patience_seconds: float) -> int:
        """Syncs what waits; a disk that refuses is given so long. Returns how many settlements were left."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience_seconds)
        with self._changed:
            self._patience_over = True
            self._changed.notify()
        self._thread.join()
        return sum(len(command.settlements) for command in self._waiting)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                group = list(self._waiting)
            if not group or not self._sync(group):
                return
            with self._changed:
                del self._waiting[: len(group)]
            for command in group:
                self._hand_on(command)

    def _sync(self, group: list[SettleItems]) -> bool:
        paths = _paths(group)
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                sync_outputs(paths)
            except OSError as error:
                self._stalls.begin("sync", f"outputs cannot be brought to the disk: {error}")
            else:
                self._stalls.end("sync")
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._patience_over, delay):
                    return False
            delay = longer(delay)
