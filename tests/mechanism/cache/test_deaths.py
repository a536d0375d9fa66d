"""Killed between any two steps: nothing half-made has a name, the limits hold, what is found is right."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from protocol import faults
from supervisor.mechanism.cache.upkeep import Sweep
from supervisor.mechanism.cache.verify import run, verifying
from tests.mechanism.cache.bed import SMALL, Bed
from tests.mechanism.cache.dying import LIMIT_BYTES, NAMES

COUNTS = (1, 3)


def killed(directory: Path, point: str, count: int) -> str:
    """Has a child die at a point; returns what it said."""
    bed = Bed(directory, limit_bytes=LIMIT_BYTES)
    for name in NAMES:
        bed.image(name)
    bed.close()
    command = [sys.executable, "-m", "tests.mechanism.cache.dying", str(directory), point, str(count)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = child.stdout.strip()
    assert child.returncode == (-signal.SIGKILL if said == "reached" else 0), child.stderr
    return said


def inspect(directory: Path) -> None:
    """What must be true after any death."""
    bed = Bed(directory, limit_bytes=LIMIT_BYTES, orphan_age_seconds=0.0)
    assert bed.said == [], "nothing is damaged by a death"
    partial = [path for path in bed.out.iterdir() if path.name.startswith(".")]
    assert partial == [], "the unfinished output was noted and cleaned up"
    sizes = {f"{name}.{label}.webp": SMALL if number % 4 == 3 else 40_000 for number, name in enumerate(NAMES)
             for label in ("256", "1024")}  # fmt: skip
    for path in bed.out.iterdir():
        right = bed.right(path.name[:5], sizes[path.name])[path.name]
        assert path.read_bytes() in (right, b"an older one of ours"), f"{path.name} is complete or not there"
    counted = bed.store.index.entries, bed.store.index.bytes
    bed.store.index.recount()
    assert (bed.store.index.entries, bed.store.index.bytes) == counted and counted[1] <= LIMIT_BYTES
    assert run(verifying(bed.store, repair=False)).damaged == 0, "no entry without its blobs"
    sweep = Sweep(bed.store)
    while sweep.turn():
        bed.store.commit()
    assert run(verifying(bed.store, repair=False)).sound
    for name in NAMES:
        for output in bed.out.glob(f"{name}.*"):
            output.unlink()
    answers = bed.find(*NAMES)
    for hit in answers.hits:
        name = NAMES[hit.id]
        assert {path.name: path.read_bytes() for path in bed.out.glob(f"{name}.*")} == bed.right(
            name, SMALL if hit.id % 4 == 3 else 40_000
        )
    bed.close()


@pytest.mark.timeout(120)
def test_a_death_at_any_point_costs_orphans_at_most(tmp_path: Path) -> None:
    cases = [(point, count) for point in faults.CACHE_POINTS for count in COUNTS]

    def one(case: tuple[str, int]) -> str:
        directory = tmp_path / f"{case[0]}-{case[1]}"
        directory.mkdir()
        said = killed(directory, *case)
        inspect(directory)
        return said

    with ThreadPoolExecutor(2) as pool:
        said = dict(zip(cases, pool.map(one, cases), strict=True))
    never = [point for point in faults.CACHE_POINTS if said[point, 1] != "reached"]
    assert never == [], "every point was reached"


def test_the_note_of_an_unfinished_output_deletes_nothing_else(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.close()
    victim = bed.out / "holiday.jpg"
    victim.write_bytes(b"mine")
    raw = os.fsencode(victim)
    (bed.cache / "delivering").write_bytes(len(raw).to_bytes(4, "big") + raw)
    bed.open()
    assert victim.read_bytes() == b"mine"
    bed.close()
