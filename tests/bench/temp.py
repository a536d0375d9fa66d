"""Temp files: what is left of the killed after a second, and what deleting very many does to the loop.

Bytes are counted from outside, as blocks below the temp root. The loop is watched by a client that asks it again and
again for its longest turn. The same is asked of an idle supervisor while a bare process deletes as many files, which
shows the noise of the machine. The peers leave what a killed worker made until their next start (Dask), or for ever
(Ray), as their manuals and issues say; neither is installed here.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from protocol.recorder import RecorderReader
from supervisor.mechanism.turns import WINDOW_SECONDS
from tests.bench.house import House, until
from tests.bench.rows import Row, p95, row
from tests.bench.terms import Terms

WORKERS = 2
FILES = 100_000
STALL_MS = 5
PAUSE_SECONDS = 0.005
"""Between two questions: one that asks all the time keeps the loop busy by itself."""
LEFT_AFTER_SECONDS = 1.0
STRANGER = """
import os, sys
for entry in os.scandir(sys.argv[1]):
    entry.stat()
    os.unlink(entry.path)
"""
SETTLED_FIRST = 3
"""A worker that dies before its first item is settled is no killed item, and its successor is held back."""
BLOCK_BYTES = 512
CONFIG = """
[recipes.litter]
steps = [{{ operation = "misbehave.litter", files = {files}, bytes = 4096, seconds = {seconds} }}]
"""


def run(terms: Terms) -> Iterator[Row]:
    """Three stories: all workers killed at once, many items killed one by one, one very full directory."""
    yield row(
        "temp bytes 1 s after kill -9 of all workers",
        [_all_killed(terms.count(2_000)) for _ in range(terms.runs)],
        "bytes",
        at_most=0,
    )
    kills = terms.count(1_000, 100)
    yield row(f"temp bytes 1 s after {kills:,} killed items", [_killed_one_by_one(kills)], "bytes", at_most=0)
    yield _stall(terms)


def _all_killed(files: int) -> float:
    with House(workers=WORKERS, config=CONFIG.format(files=files, seconds=60)) as house:
        batch = _submit(house, WORKERS)
        until(lambda: _held(house)[0] >= WORKERS * files, "temp files of all workers")
        house.client.cancel(batch)
        for worker in house.status().workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(LEFT_AFTER_SECONDS)
        return _held(house)[1]


def _killed_one_by_one(kills: int) -> float:
    chance = random.Random(1)
    with House("--batch-size-max", "4", workers=WORKERS, config=CONFIG.format(files=20, seconds=0.03)) as house:
        batch = _submit(house, kills * 40)
        reader = RecorderReader(os.path.join(house.state, "recorder.bin"), WORKERS)
        try:
            done = 0
            while done < kills:
                done += _kill_one(house, reader, done % WORKERS, chance)
        finally:
            reader.close()
        house.client.cancel(batch)
        house.wait_idle()
        time.sleep(LEFT_AFTER_SECONDS)
        return _held(house)[1]


def _kill_one(house: House, reader: RecorderReader, slot: int, chance: random.Random) -> bool:
    """Kills the worker in a slot within an item; tells whether it was still there."""
    until(lambda: reader.progress(slot)[4] >= SETTLED_FIRST and reader.progress(slot)[1] != 0, "a worker at an item")
    time.sleep(chance.uniform(0.0, 0.01))
    pid = house.status().workers[slot].pid
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    until(lambda: house.status().workers[slot].pid != pid, "its death seen")
    return True


def _stall(terms: Terms) -> Row:
    files = terms.count(FILES)
    ours: list[tuple[float, float]] = []
    strangers: list[tuple[float, float]] = []
    seconds: list[float] = []
    for _ in range(terms.runs):
        with House(workers=WORKERS, config=CONFIG.format(files=files, seconds=60)) as house:
            strangers.append(_beside_a_stranger(house, files))
            batch = _submit(house, 1)
            until(lambda: _held(house)[0] >= files, "a full temp directory", pause=0.5)
            house.client.cancel(batch)
            busy = next(worker for worker in house.status().workers if worker.current is not None)
            assert busy.pid is not None
            time.sleep(WINDOW_SECONDS + 1)  # the turns before are of no account
            os.kill(busy.pid, signal.SIGKILL)
            until(lambda h=house: _trash(h), "the directory in the trash", pause=0.001)  # type: ignore[misc]
            began = time.perf_counter()
            ours.append(_watched(house, lambda h=house: _trash(h)))  # type: ignore[misc]
            seconds.append(time.perf_counter() - began)
    return row(
        f"longest turn of the loop while {files:,} files are deleted",
        [turn * 1000 for _, turn in ours],
        "ms",
        at_most=STALL_MS,
        beside=f"while a bare process deletes as many: {_told([turn for _, turn in strangers])}; a client's longest "
        f"round trip: {_told([trip for trip, _ in ours])}, beside the bare process: "
        f"{_told([trip for trip, _ in strangers])}; deleted in {statistics.median(seconds):.3g} s",
    )


def _told(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.3g} ms (p95 {p95(seconds) * 1000:.3g})"


def _beside_a_stranger(house: House, files: int) -> tuple[float, float]:
    directory = os.path.join(house.directory, "many")
    os.mkdir(directory)
    for number in range(files):
        with open(os.path.join(directory, str(number)), "wb") as file:
            file.write(bytes(4096))
    stranger = subprocess.Popen([sys.executable, "-c", STRANGER, directory])
    try:
        return _watched(house, lambda: stranger.poll() is None)
    finally:
        stranger.wait()
        os.rmdir(directory)


def _watched(house: House, go_on: Callable[[], bool]) -> tuple[float, float]:
    """Returns the longest round trip and the loop's longest turn, in seconds, while that goes on."""
    trip = turn = 0.0
    while go_on():
        began = time.perf_counter()
        status = house.status()
        trip = max(trip, time.perf_counter() - began)
        turn = max(turn, status.loop_turn_max_seconds)
        time.sleep(PAUSE_SECONDS)
    return trip, turn


def _trash(house: House) -> bool:
    return any("trash" in name for name in os.listdir(os.path.join(house.state, "temp")))


def _submit(house: House, count: int) -> str:
    photos = os.path.join(house.directory, "photos")
    os.mkdir(photos)
    names = [f"{number}.jpg" for number in range(count)]
    for name in names:
        with open(os.path.join(photos, name), "wb"):
            pass
    return house.submit("litter", photos, names, os.path.join(house.directory, "out"))


def _held(house: House) -> tuple[int, float]:
    """Files below the temp root and their bytes on the disk; what vanishes meanwhile is not there."""
    files, size = 0, 0
    for directory, _, names in os.walk(os.path.join(house.state, "temp")):
        for name in names:
            try:
                size += os.lstat(os.path.join(directory, name)).st_blocks * BLOCK_BYTES
                files += 1
            except FileNotFoundError:
                pass
    return files, float(size)
