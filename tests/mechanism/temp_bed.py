"""A temp root with what workers, strangers and attackers leave in it; and a keeper whose thread is real."""

import fcntl
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from protocol.messages import AnyAnswer, TempReport, TempUsage
from protocol.temp_name import TempName, host, start_ticks, stem
from supervisor.mechanism.temp import Keeper, TempRoot
from supervisor.mechanism.temp.reaper import Reaper
from supervisor.policy.events import TempEased, TempFilled
from supervisor.policy.temp import TempSettings

OURS, THEIRS, RUN = "0badcafe", "deadbeef", "12345678"
WAIT_SECONDS = 30.0
SETTINGS = TempSettings(sweep_seconds=3600)


def dead_pid() -> tuple[int, int]:
    """Returns pid and start of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-Sc", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(process.pid)
    assert ticks is not None
    process.communicate(b"\n")
    return process.pid, ticks


def name_of(
    place: str = "0.1",
    *,
    token: str = OURS,
    pid: int | None = None,
    start: int | None = None,
    on: str | None = None,
) -> str:
    """Returns the name of a worker's directory; by default of a worker that is dead."""
    if pid is None:
        pid, ticks = dead_pid()
        start = ticks if start is None else start
    label = TempName(token=token, run=RUN, place=place, pid=pid, start_ticks=start or 0, host=on or host())
    return label.text()


def fill(directory: Path, files: int = 3) -> Path:
    """Makes a directory with some files of 4 KiB at several depths."""
    (directory / "thumbnail" / "deep").mkdir(parents=True)
    for number in range(files):
        place = directory / "thumbnail" / ("deep" if number % 2 else "")
        (place / f"file {number}").write_bytes(os.urandom(4096))
    return directory


def hold(directory: Path, how: int = fcntl.LOCK_SH) -> int:
    """Takes the directory's lock as its worker does, or as systemd-tmpfiles does (LOCK_EX)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    return descriptor


class Bed:
    """A temp root of one supervisor."""

    def __init__(self, path: Path, token: str = OURS, *, private: bool = True, **settings: float) -> None:
        self.path = path
        self.root = TempRoot(str(path), token, private=private)
        self.settings = msgspec.structs.replace(SETTINGS, **settings)
        self.complaints: list[str] = []
        self.reaper = Reaper(self.root, self.settings, self.complaints.append)

    def sweep(self, *, pressed: bool = False, dry_run: bool = False) -> TempReport:
        """Sweeps to the end."""
        reports: list[TempReport] = []
        for _ in self.reaper.sweep(pressed, dry_run, reports.append):
            pass
        return reports[0]

    def names(self) -> list[str]:
        """Returns what is in the root."""
        return sorted(os.listdir(self.path))


class KeeperBed(Bed):
    """The same with a keeper at work."""

    def __init__(self, path: Path, token: str = OURS, *, private: bool = True, **settings: float) -> None:
        super().__init__(path, token, private=private, **settings)
        self.events: queue.Queue[TempFilled | TempEased] = queue.Queue()
        self._answers: queue.Queue[AnyAnswer] = queue.Queue()
        self.keeper = Keeper(
            self.root,
            self.settings,
            post=self.events.put,
            answer=lambda peer, answer: self._answers.put(answer),
            complain=self.complaints.append,
        )
        self.keeper.start()

    def worker(self, slot: int, incarnation: int) -> Path:
        """Returns the directory of a worker of this run, made as a worker makes it; its process is dead."""
        pid, ticks = dead_pid()
        place = stem(OURS, self.root.run, f"{slot}.{incarnation}")
        directory = self.path / f"{place}-{pid}-{ticks}-{host()}"
        directory.mkdir()
        return directory

    def usage(self) -> TempUsage:
        """Waits for an answer that tells usage."""
        answer = self._answers.get(timeout=WAIT_SECONDS)
        assert isinstance(answer, TempUsage)
        return answer

    def report(self) -> TempReport:
        """Waits for an answer that tells a reap."""
        answer = self._answers.get(timeout=WAIT_SECONDS)
        assert isinstance(answer, TempReport)
        return answer

    def close(self) -> None:
        """Ends the thread."""
        self.keeper.close(5)
        self.root.close()


def until(fact: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> float:
    """Waits for a fact; returns the seconds it took."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < seconds, f"still not: {what}"
        os.sched_yield()
    return time.monotonic() - began
