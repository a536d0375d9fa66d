"""What is in the temp root: for the reaper the fate of every name, for people bytes, files and who made them.

A worker's files lie in a directory for each operation (`workers.scratch`), so a path tells its source. Files that are
deleted and still open (libvips spills so) are no longer in any directory but still on the disk: the descriptors of
our workers in /proc name them. Bytes are blocks on the disk, not lengths: a sparse file holds what it holds.
"""

import os
import stat
import time
from collections.abc import Generator, Iterator

import msgspec

from protocol.messages import TempLease
from protocol.paths import to_token
from protocol.temp_name import TempName, host, parse, start_ticks
from supervisor.mechanism.deleting.directory import open_directory
from supervisor.mechanism.deleting.tree import BLOCK_BYTES
from supervisor.mechanism.temp.directory import Held, lock_alone
from supervisor.mechanism.temp.root import TempRoot
from supervisor.policy.temp import Entry, Fate, Process, TempSettings, judge

KEPT = "kept"
"""As in `workers.scratch`: what outlives a lease, by source below it."""
WORKER_SOURCE = "worker"
TRASH_SOURCE = "trash"
STRAY_SOURCE = "stray"
DEPTH_AT_MOST = 64
"""Each level of a walk holds a descriptor; deeper than this only a hostile tree goes, and it is counted up to here."""
_DELETED = " (deleted)"


class Candidate(msgspec.Struct, kw_only=True):
    """A name, its fate, and the locked descriptor of its directory; who holds it closes it."""

    name: str
    entry: Entry
    fate: Fate
    label: TempName | None = None
    lock: int | None = None

    def release(self) -> None:
        """Lets the lock go."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def process_of(label: TempName) -> Process:
    """Tells what became of the process in a label."""
    if "0" in (label.host, host()) or label.host != host() or not label.start_ticks:
        return "elsewhere"
    return "alive" if start_ticks(label.pid) == label.start_ticks else "gone"


def candidates(root: TempRoot, settings: TempSettings, pressed: bool) -> Iterator[Candidate]:
    """Yields every name in the root with its fate; what is to be reaped comes locked."""
    for name in root.names():
        label = parse(name)
        if label is None and not root.private:
            continue
        found = _look(root, name, label)
        if found is None:
            continue
        found.fate = judge(found.entry, root.token, root.private, pressed, settings)
        if not found.fate.reap:
            found.release()
        yield found


def _look(root: TempRoot, name: str, label: TempName | None) -> Candidate | None:
    try:
        seen = os.stat(name, dir_fd=root.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    candidate = Candidate(name=name, entry=Entry(token=None), fate=Fate(False, ""), label=label)
    is_directory = stat.S_ISDIR(seen.st_mode)
    lock = "free"
    if is_directory:
        try:
            candidate.lock = lock_alone(name, root.fd)
        except Held:
            lock = "held"
        except OSError:
            lock = "unknown"
    candidate.entry = Entry(
        token=label.token if label is not None else None,
        is_trash=label is not None and label.is_trash,
        is_directory=is_directory,
        age_seconds=max(0.0, time.time() - max(seen.st_mtime, seen.st_ctime)),
        lock=lock,  # type: ignore[arg-type]  # one of the three words
        process=process_of(label) if label is not None and not label.is_trash else "gone",
    )
    return candidate


# ---- figures -------------------------------------------------------------------------------------


class Usage(msgspec.Struct, kw_only=True):
    """Files and bytes, by source."""

    files: int = 0
    bytes: int = 0
    open_deleted_bytes: int = 0
    by_source: dict[str, int] = {}
    leases: list[TempLease] = []

    def add(self, source: str, size_bytes: int) -> None:
        """Counts a file."""
        self.files += 1
        self.bytes += size_bytes
        self.by_source[source] = self.by_source.get(source, 0) + size_bytes


def measure(root: TempRoot) -> Generator[None, None, Usage]:
    """Counts what is ours in the root; yields after each file. Its value is the sum."""
    total = Usage(by_source={}, leases=[])
    for name in root.names():
        label = parse(name)
        if label is None or label.token != root.token:
            if label is None and root.private:
                yield from _measure_stray(root, name, total)
            continue
        files, before = total.files, total.bytes
        yield from measure_tree(root.fd, name, total, TRASH_SOURCE if label.is_trash else None)
        if not label.is_trash and process_of(label) == "alive":
            _count_deleted(root, label, total)
            slot, _, incarnation = label.place.partition(".")
            total.leases.append(
                TempLease(
                    slot=int(slot),
                    incarnation=int(incarnation),
                    pid=label.pid,
                    directory=to_token(os.path.join(root.path, name)),
                    bytes=total.bytes - before,
                    files=total.files - files,
                )
            )
    return total


def _measure_stray(root: TempRoot, name: str, total: Usage) -> Iterator[None]:
    try:
        seen = os.stat(name, dir_fd=root.fd, follow_symlinks=False)
    except OSError:
        return
    if stat.S_ISDIR(seen.st_mode):
        yield from measure_tree(root.fd, name, total, STRAY_SOURCE)
    else:
        total.add(STRAY_SOURCE, seen.st_blocks * BLOCK_BYTES)


def measure_tree(parent: int, name: str, total: Usage, source: str | None, depth: int = 0) -> Iterator[None]:
    """Counts a directory and all below it; `source` None: the directories in it are the sources."""
    try:
        descriptor = open_directory(name, parent)
    except OSError:
        return  # gone meanwhile
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                yield
                below = source
                if source is None and entry.is_dir(follow_symlinks=False):
                    below = entry.name if entry.name != KEPT else None
                if entry.is_dir(follow_symlinks=False):
                    if depth < DEPTH_AT_MOST:
                        yield from measure_tree(descriptor, entry.name, total, below, depth + 1)
                    continue
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                total.add(source or WORKER_SOURCE, seen.st_blocks * BLOCK_BYTES)
    except OSError:
        pass  # the directory was deleted while it was read
    finally:
        os.close(descriptor)


def _count_deleted(root: TempRoot, label: TempName, total: Usage) -> None:
    """Counts what one of our workers holds open below its directory without a name."""
    descriptors = f"/proc/{label.pid}/fd"
    below = os.path.join(root.path, label.text()) + "/"
    seen: set[tuple[int, int]] = set()
    try:
        numbers = os.listdir(descriptors)
    except OSError:
        return
    for number in numbers:
        link = f"{descriptors}/{number}"
        try:
            target = os.readlink(link)
            if not (target.startswith(below) and target.endswith(_DELETED)):
                continue
            found = os.stat(link)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        size = found.st_blocks * BLOCK_BYTES
        parts = target.removeprefix(below).split("/")
        parts = parts[1:] if parts[0] == KEPT else parts
        total.add(parts[0] if len(parts) > 1 else WORKER_SOURCE, size)
        total.open_deleted_bytes += size
