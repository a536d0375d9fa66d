"""Galleries made by code: whole, quick, and with the oddities they promise."""

import os
import subprocess
import sys
from pathlib import Path

from tests.galleries import make_gallery
from tests.mechanism.performing import Bench
from workers import specimens


def test_a_gallery_has_a_verdict_for_every_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    ends = {os.path.basename(path): bench.run(os.fsencode(path)) for path in make_gallery(tmp_path / "g", 16, odd=True)}
    failed = {name: report.error.kind for name, report in ends.items() if report.error is not None}
    assert failed == {"corrupt.png": "corrupt", "empty.jpg": "corrupt", "text.jpg": "unsupported"}
    assert len(ends) == 16 and {"giant.png", "progressive.jpg", "truncated.jpg", specimens.CRASHING_NAME} < set(ends)
    assert all(len(report.written) == 2 for name, report in ends.items() if name not in failed)


def test_the_same_gallery_twice(tmp_path: Path) -> None:
    first, second = dict(specimens.oddities(1)), dict(specimens.oddities(1))
    assert set(first) == set(second) and first["corrupt.png"] == second["corrupt.png"]


def test_it_is_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers.specimens", str(tmp_path / "g"), "--count", "9", "--plain"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.stdout, len(os.listdir(tmp_path / "g"))) == ("9\n", 9), run.stderr
