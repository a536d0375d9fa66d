"""Reaps what is stale: each as a job of bounded steps."""

import os
from collections.abc import Callable, Generator

from protocol.messages import TempItem, TempReport
from protocol.paths import to_token
from supervisor.mechanism.deleting.helper import Wait, delete_apart
from supervisor.mechanism.deleting.tree import Tally, delete
from supervisor.mechanism.temp.directory import Changed, put_into_trash
from supervisor.mechanism.temp.root import TempRoot
from supervisor.mechanism.temp.survey import Candidate, Usage, candidates, measure_tree
from supervisor.policy.temp import TempSettings

Job = Generator[Wait | None, None, None]
"""Yields after each step; a number where it can only wait so many seconds."""
FILES_BY_OURSELVES = 2_000
"""A directory of more is given to a process of its own: to start one costs what it costs to delete so many."""


class Reaper:
    """Deletes, and remembers how much. One thread. While `may_help`, and one at a time, what is very large is deleted
    by a process of its own."""

    def __init__(
        self, root: TempRoot, settings: TempSettings, complain: Callable[[str], None], *, may_help: bool = False
    ) -> None:
        self._root = root
        self.settings = settings
        self._complain = complain
        self.may_help = may_help
        self._told: set[str] = set()
        self.reaped_bytes = 0
        self.reaped_files = 0

    def trash(self, name: str, lock: int) -> tuple[str, Tally, Job] | None:
        """Takes a locked directory out of sight, at once; the job deletes it and lets the lock go. None where it
        cannot be renamed, which is told."""
        try:
            trash = put_into_trash(self._root, name, lock)
        except Changed:
            os.close(lock)
            return None
        except OSError as error:
            os.close(lock)
            self.tell(name, error.strerror or str(error))
            return None
        tally = Tally()
        return trash, tally, self._empty(trash, lock, tally)

    def _empty(self, trash: str, lock: int, tally: Tally) -> Job:
        try:
            yield from self._delete(trash, lock, tally)
        except OSError as error:
            tally.failed(trash, error.strerror or str(error))
        finally:
            os.close(lock)
            self.reaped_bytes += tally.bytes
            self.reaped_files += tally.files
        if tally.faults:
            self.tell(trash.rpartition("-trash.")[0], "; ".join(tally.faults))

    def _delete(self, trash: str, lock: int, tally: Tally) -> Job:
        what = (self._root.fd, trash, lock, self._root.device, tally)
        steps = delete(*what)
        for count, _ in enumerate(steps, 1):
            yield None
            if count < FILES_BY_OURSELVES or not self.may_help:
                continue
            steps.close()
            self.may_help = False
            try:
                if (yield from delete_apart(*what)):
                    return
            finally:
                self.may_help = True
            yield from delete(*what)
            return

    def sweep(self, pressed: bool, dry_run: bool, done: Callable[[TempReport], None]) -> Job:
        """Judges every name and reaps what is stale; `done` is given the report at the end."""
        items: list[TempItem] = []
        for candidate in candidates(self._root, self.settings, pressed):
            if not candidate.fate.reap:
                yield None
                continue
            if dry_run:
                items.append((yield from self._would(candidate)))
                continue
            tally = yield from self._reap(candidate)
            if tally is not None:
                items.append(_item(self._root, candidate, tally.files, tally.bytes))
        done(
            TempReport(
                dry_run=dry_run,
                reaped=items,
                files=sum(item.files for item in items),
                bytes=sum(item.bytes for item in items),
            )
        )

    def _would(self, candidate: Candidate) -> Generator[Wait | None, None, TempItem]:
        total = Usage(by_source={}, leases=[])
        if candidate.entry.is_directory:
            yield from measure_tree(self._root.fd, candidate.name, total, candidate.name)
        else:
            total.files = 1
        candidate.release()
        return _item(self._root, candidate, total.files, total.bytes)

    def _reap(self, candidate: Candidate) -> Generator[Wait | None, None, Tally | None]:
        if candidate.lock is not None:
            lock, candidate.lock = candidate.lock, None
            begun = self.trash(candidate.name, lock)
            if begun is None:
                return None
            yield from begun[2]
            return begun[1]
        tally = Tally()
        try:
            found = os.stat(candidate.name, dir_fd=self._root.fd, follow_symlinks=False)
            os.unlink(candidate.name, dir_fd=self._root.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.tell(candidate.name, error.strerror or str(error))
            return None
        tally.gone(found)
        self.reaped_bytes += tally.bytes
        self.reaped_files += 1
        yield None
        return tally

    def tell(self, name: str, why: str) -> None:
        """Complains about a name, once."""
        if name not in self._told and len(self._told) < 1000:
            self._told.add(name)
            self._complain(f"{os.path.join(self._root.path, name)} cannot be deleted, and stays for now: {why}")


def _item(root: TempRoot, candidate: Candidate, files: int, size_bytes: int) -> TempItem:
    path = to_token(os.path.join(root.path, candidate.name))
    return TempItem(path=path, reason=candidate.fate.reason, files=files, bytes=size_bytes)
