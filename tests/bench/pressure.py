"""A container of 512 MB, four workers and a mixed gallery: who is killed, and which files get no verdict.

Ours and every peer do the same two thumbnails of the same files in a memory control group of their own, one after the
other. The group's own counters say how many processes the kernel killed and how much was used at most. A peer is over
when it ends, when every file has its verdict, or when for STILL_SECONDS no verdict came.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import msgspec
import pytest

from tests.bench import pictures, pressure_peers, pressure_work
from tests.bench.house import ROOT, until
from tests.bench.rows import Row
from tests.bench.terms import Terms
from tests.end_to_end.groups import MemoryGroup, memory_group
from workers import specimens

LIMIT_BYTES = 512 * 1024 * 1024
SMALL_LIMIT_BYTES = 300_000_000
WORKERS = 4
STILL_SECONDS = 60.0
LONGEST_SECONDS = 1800.0
PEER_FILES = 1000
"""The peers get the first of the files: enough to see what becomes of them; some need a quarter of a second each."""
SLOWER_AT_MOST = 1.25


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run: bytes, seconds, files."""

    files: int
    verdicts: int
    done: int
    oom_kills: int
    peak_bytes: int
    seconds: float
    end: str

    def told(self) -> str:
        """Returns it in a sentence."""
        return (
            f"{self.verdicts:,} verdicts of {self.files:,} ({self.done:,} done), {self.oom_kills} OOM kills, "
            f"group's peak {self.peak_bytes / 1e6:,.0f} MB, {self.seconds:.0f} s, {self.end}"
        )


def run(terms: Terms) -> Iterator[Row]:
    """Ours in 512 MB, ours without a limit, every peer in 512 MB; then 1,000 photos with two workers in 300 MB."""
    with tempfile.TemporaryDirectory(prefix="bench-pressure-") as place:
        files = _gallery(terms, place, terms.count(5000, 600))
        try:
            limited = _ours(place, files, LIMIT_BYTES, WORKERS)
        except pytest.skip.Exception as missing:
            yield Row(name="512 MB", ours=None, unit="files", beside=f"not measured: {missing.msg}")
            return
        yield _verdict("512 MB, 4 workers: files without verdict + OOM kills", limited)
        free = _ours(place, files, None, WORKERS)
        yield Row(
            name="time in 512 MB ÷ time without a limit",
            ours=limited.seconds / free.seconds,
            unit="x",
            target=f"≤ {SLOWER_AT_MOST:g}",
            met=limited.seconds / free.seconds <= SLOWER_AT_MOST,
            beside=f"without: {free.told()}",
        )
        for name, (title, _) in pressure_peers.PEERS.items():
            lacking = pressure_peers.lacking(name)
            if lacking is not None:
                yield Row(name=f"peer: {title}", ours=None, unit="files", beside=f"not here: {lacking}")
                continue
            outcome = _peer(place, name, files[:PEER_FILES])
            lost = outcome.files - outcome.verdicts
            yield Row(name=f"peer: {title}", ours=float(lost + outcome.oom_kills), unit="", beside=outcome.told())
    with tempfile.TemporaryDirectory(prefix="bench-pressure-") as place:
        root = os.path.join(place, "gallery")
        names = pictures.camera(root, terms.count(1000, 120))
        files = [os.path.join(root, name) for name in names]
        small = _ours(place, files, SMALL_LIMIT_BYTES, 2)
        row = _verdict("300 MB, 2 workers, photos of 1 to 26 megapixels: files without verdict + OOM kills", small)
        yield msgspec.structs.replace(row, met=row.met and small.peak_bytes <= SMALL_LIMIT_BYTES)


def _verdict(name: str, outcome: Outcome) -> Row:
    lost = outcome.files - outcome.verdicts + outcome.oom_kills
    return Row(name=name, ours=float(lost), unit="", target="0", met=lost == 0, beside=outcome.told())


def _gallery(terms: Terms, place: str, count: int) -> list[str]:
    """Returns `count` files: those of the gallery that is named again and again, or ones made by code."""
    root = os.path.join(place, "gallery")
    os.mkdir(root)
    if terms.gallery is None:
        specimens.make_gallery(root, count, giant_megapixels=60)
        return [os.path.join(root, name) for name in pictures.found(root)]
    found = pictures.found(terms.gallery)
    files = []
    for number in range(count):
        name = found[number % len(found)]
        path = os.path.join(root, f"{number:05d}-{os.path.basename(name)}")
        shutil.copyfile(os.path.join(terms.gallery, name), path)
        files.append(path)
    return files


def _ours(place: str, files: list[str], limit_bytes: int | None, workers: int) -> Outcome:
    out, state = os.path.join(place, "out-ours"), os.path.join(place, "state")
    # In a control group of its own also without a limit: the group is what counts and measures.
    with memory_group(limit_bytes or 16 * 1024**3) as group:
        command = [sys.executable, "-m", "supervisor", "run", os.path.dirname(files[0]), "--out", out]
        command += ["--workers", str(workers), "--state", state, "--cache", "no", "--json"]
        began = time.perf_counter()
        ended = subprocess.run([*group.prefix, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        last = ended.stdout.decode().strip().splitlines()[-1:]
        told = json.loads(last[0]) if last else {}
        outcome = Outcome(
            files=len(files),
            # What is no image by its name and content is said to be: that is a verdict as well.
            verdicts=sum(told.get(state, 0) for state in ("done", "cached", "failed", "quarantined", "ignored")),
            done=told.get("done", 0),
            oom_kills=group.oom_kills(),
            peak_bytes=peak(group),
            seconds=seconds,
            end=f"exit code {ended.returncode}",
        )
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(state, ignore_errors=True)
    return outcome


def _peer(place: str, name: str, files: list[str]) -> Outcome:
    out, verdicts, listing = (os.path.join(place, each) for each in (f"out-{name}", f"verdicts-{name}", "list"))
    os.mkdir(out)
    with open(listing, "w", encoding="utf-8") as file:
        file.write("\n".join(files))
    with memory_group(LIMIT_BYTES) as group, _broker(place, name) as socket:
        command = [sys.executable, "-m", "tests.bench.pressure_peers", name, listing, out, verdicts]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*group.prefix, *command, f"--workers={WORKERS}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "REDIS": socket, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            end, seconds = _watch(process, verdicts, len(files), began)
        finally:
            _end(group, process)
        said = dict(pressure_work.read(verdicts))
        outcome = Outcome(
            files=len(files),
            verdicts=len(said),
            done=sum(verdict == "done" for verdict in said.values()),
            oom_kills=group.oom_kills(),
            peak_bytes=peak(group),
            seconds=seconds,
            end=end,
        )
    shutil.rmtree(out, ignore_errors=True)
    return outcome


def _watch(process: "subprocess.Popen[bytes]", verdicts: str, files: int, began: float) -> tuple[str, float]:
    """Waits for the end of a peer; returns how it ended and after how many seconds the last verdict came."""
    seen, last = 0, time.perf_counter()
    while True:
        now = time.perf_counter()
        count = len(dict(pressure_work.read(verdicts)))
        if count > seen:
            seen, last = count, now
        if count >= files:
            return "all answered", last - began
        code = process.poll()
        if code is not None:
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return f"ended by itself: {how}", now - began
        if now - last > STILL_SECONDS:
            return f"stood still for {STILL_SECONDS:.0f} s, then ended by us", last - began
        if now - began > LONGEST_SECONDS:
            return f"not done after {LONGEST_SECONDS:.0f} s", now - began
        time.sleep(0.25)


def _end(group: MemoryGroup, process: "subprocess.Popen[bytes]") -> None:
    def gone() -> bool:
        for pid in group.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        return not group.members()

    until(gone, "the peer has left its group")
    process.wait()


@contextlib.contextmanager
def _broker(place: str, name: str) -> Iterator[str]:
    """Gives Celery a Redis, outside the group: its memory is not the peer's fault."""
    if name != "celery":
        yield ""
        return
    socket = os.path.join(place, "redis.sock")
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", place],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: os.path.exists(socket), "redis answers")
        yield socket
    finally:
        server.terminate()
        server.wait()


def peak(group: MemoryGroup) -> int:
    name = "memory.max_usage_in_bytes" if group.version == 1 else "memory.peak"
    try:
        with open(os.path.join(group.path, name), encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0  # memory.peak is younger than control groups v2
