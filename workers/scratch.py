"""Temp files of operations: each in the worker's own directory, below the name of the operation that made it.

TMPDIR points there while the operation runs, so that files of libraries that were never told land there too (libvips
reads it anew for every image it spills). Nothing depends on an operation's good manners: what it tracks goes at the
end of its item, whatever else it left goes with the lease, and the directory goes with the worker, by whoever is
there to do it: the worker in good order, else the supervisor.

    with work.scratch() as scratch:                 # or `async with`
        path = scratch.new(".tif")                  # made, empty, tracked
        ...
        os.rename(scratch.untrack(path), elsewhere) # it is somebody else's now
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Self

from protocol.temp_name import labelled
from workers.cleanup import CleanupRegistry, Moment
from workers.temp import clear_directory, remove_directory

KEPT = "kept"
"""The part of the directory that is not emptied with a lease: trackers of the moment WORKER."""
DECODING = "decode"
"""The source of what decoders spill before any operation runs."""
DIRECTORY_PRIORITY = 900
TRACKED_PRIORITY = 800
"""Tracked files go before the directory is emptied, and after what operations put back by themselves."""
MAX_TRACKED = 100_000
FULL_BYTES = 1024 * 1024

_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class TempFileTracker:
    """The temp files of one piece of work: whatever ends it, they are deleted. A context manager, of both kinds."""

    def __init__(self, directory: str, source: str, forget: Callable[[], None] = lambda: None) -> None:
        """`directory` is an existing one of this worker's; `source` the operation that makes the files."""
        self.directory = directory
        self.source = source
        self._forget = forget
        self._tracked: dict[str, None] = {}

    def new(self, suffix: str = "") -> str:
        """Makes an empty file and tracks it; returns its path. Raises OSError."""
        descriptor, path = tempfile.mkstemp(suffix, "", self.directory)
        os.close(descriptor)
        return self.track(path)

    def new_directory(self) -> str:
        """Makes a directory and tracks it with all that will be in it; returns its path. Raises OSError."""
        return self.track(tempfile.mkdtemp("", "", self.directory))

    def track(self, path: str) -> str:
        """Has a file or directory deleted at the end, whether it is there yet or not; returns its path.

        Raises ValueError for a path outside the worker's temp directory, and beyond MAX_TRACKED paths.
        """
        full = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path))
        if not full.startswith(os.path.realpath(self.directory) + os.sep):
            raise ValueError(f"{path} is not in the temp directory {self.directory}: only what is there may be tracked")
        if len(self._tracked) >= MAX_TRACKED:
            raise ValueError(f"{self.source} tracks {MAX_TRACKED:,} temp files already; untrack or clean some")
        self._tracked[full] = None
        return path

    def untrack(self, path: str) -> str:
        """Leaves a path alone: it has been moved, or is to live until the directory goes; returns it."""
        full = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path))
        self._tracked.pop(full, None)
        return path

    @property
    def tracked(self) -> list[str]:
        """What is to be deleted, in the order in which it was tracked."""
        return list(self._tracked)

    def clean(self) -> list[str]:
        """Deletes all that is tracked, newest first; returns a sentence for each path that could not be."""
        failed = []
        while self._tracked:
            path, _ = self._tracked.popitem()
            try:
                _delete(path)
            except FileNotFoundError:
                pass  # whoever made it has tidied up
            except OSError as error:
                failed.append(f"{path} of {self.source}: {error.strerror}")
        return failed

    def close(self) -> list[str]:
        """Cleans, and is forgotten by who would have cleaned later; returns what `clean` does."""
        self._forget()
        return self.clean()

    def _end(self) -> None:
        if failed := self.close():
            raise OSError("temp files could not be deleted: " + "; ".join(failed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        try:
            self._end()
        except OSError as failed:
            if error is None:
                raise
            error.add_note(str(failed))  # what went wrong first is what counts


class Scratch:
    """The temp directory of this worker."""

    def __init__(self, directory: str, cleanup: CleanupRegistry | None = None, *, keep_directory: bool = False) -> None:
        """`directory` exists. Its emptying with every lease and its end with the worker are added to `cleanup`;
        `keep_directory`: at the worker's end it is emptied only (a sandbox may not delete it)."""
        self.directory = directory
        self.cleanup = cleanup if cleanup is not None else CleanupRegistry()
        self._made: set[str] = set()
        self._number = 0
        leave = clear_directory if keep_directory else remove_directory
        self.cleanup.add(Moment.LEASE, "temp directory", self.clear, priority=DIRECTORY_PRIORITY)
        self.cleanup.add(Moment.WORKER, "temp directory", lambda: leave(directory), priority=DIRECTORY_PRIORITY)
        self._point_at(directory)

    def enter(self, source: str) -> str:
        """From here on temp files are those of `source`, an operation; returns their directory. Raises OSError."""
        name = _as_name(source)
        directory = os.path.join(self.directory, name)
        if name not in self._made:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._made.add(name)
        self._point_at(directory)
        return directory

    def tracker(
        self, source: str, moment: Moment = Moment.ITEM, *, priority: int = TRACKED_PRIORITY
    ) -> TempFileTracker:
        """Returns a tracker whose files are deleted at its end, or at the latest at the end of the item, the lease
        or the worker. Raises OSError."""
        directory = self.enter(source)
        if moment is Moment.WORKER:
            directory = os.path.join(self.directory, KEPT, _as_name(source))
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self._number += 1
        name = f"temp files {self._number} of {source}"
        tracker = TempFileTracker(directory, source, lambda: self.cleanup.remove(moment, name))
        self.cleanup.add(moment, name, tracker._end, priority=priority, once=True)
        return tracker

    def is_full(self) -> bool:
        """Tells whether its disk has no room for one more image of a few pixels: decoders then call files broken."""
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize < FULL_BYTES or (found.f_files > 0 and found.f_favail == 0)

    def clear(self) -> None:
        """Empties the directory, but for what is kept until the worker's end; the directories of sources stay."""
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if name == KEPT:
                continue
            if name in self._made and os.path.isdir(path) and not os.path.islink(path):
                clear_directory(path)
            else:
                self._made.discard(name)
                _delete(path)

    def _point_at(self, directory: str) -> None:
        if tempfile.tempdir != directory:
            os.environ["TMPDIR"] = tempfile.tempdir = directory


def own_directory(path: str) -> str:
    """Makes this worker's directory, whose name `path` begins, and holds its lock for life; returns its path.

    The lock is shared: the supervisor's reaper and systemd-tmpfiles take an exclusive one before they touch a
    directory, and so know that it is in use. The kernel lets it go when this process is dead. Raises OSError.
    """
    directory = labelled(path)
    os.mkdir(directory, 0o700)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a reaper that looks at it, which takes microseconds
    return directory


def _as_name(source: str) -> str:
    """An operation's name as a directory's: no slash, no dot in front, not the one that is kept."""
    name = "".join(letter if letter in _NAME_LETTERS else "_" for letter in source)[:100].lstrip(".")
    return name if name not in ("", KEPT) else f"_{name}"


def _delete(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
