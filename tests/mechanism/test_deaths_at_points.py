"""Killed with -9 between any two steps of a reap and of a publication: the next one finishes it, and touches no more.

The cache's own points are in `cache/test_deaths.py`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from protocol import faults
from protocol.recorder import RecorderReader, create
from supervisor.mechanism.remains import remove_partial
from tests.mechanism import dying
from tests.mechanism.temp_bed import THEIRS, Bed, fill, hold, name_of
from workers.publish import Publisher

COUNTS = (1, 3)


def killed(kind: str, directory: Path, point: str, count: int) -> str:
    """Has a child die at a point; returns what it said."""
    command = [sys.executable, "-m", "tests.mechanism.dying", kind, str(directory), point, str(count)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = child.stdout.strip()
    assert child.returncode == (-signal.SIGKILL if said == "reached" else 0), child.stderr
    return said


def at_each(kind: str, points: Sequence[str], tmp_path: Path) -> list[Path]:
    """Has children die at each point, for the first and for a later time; returns the directories they worked in."""
    prepare, cases = PREPARE[kind], [(point, count) for point in points for count in COUNTS]
    places = [tmp_path / f"{point}-{count}" for point, count in cases]
    for place in places:
        prepare(place)
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda case, place: killed(kind, place, *case), cases, places))
    never = [point for (point, count), word in zip(cases, said, strict=True) if count == 1 and word != "reached"]
    assert never == [], "every point was reached"
    return places


def prepare_reap(place: Path) -> None:
    """A root with two dead workers' directories; and what no reap may touch."""
    root = place / "root"
    for number in (1, 2):
        directory = fill(root / name_of(f"0.{number}"), files=5)
        (directory / "thumbnail" / "deep" / "deeper").mkdir()
        (directory / "to the photos").symlink_to(place / "photos")
    (place / "photos").mkdir()
    (place / "photos" / "p1.jpg").write_bytes(b"irreplaceable")
    fill(root / name_of("1.1", token=THEIRS))
    fill(root / name_of("2.1"))
    root.chmod(0o700)


def prepare_publish(place: Path) -> None:
    """A folder with an older output of ours and a file of somebody else's."""
    (place / "out" / "beach").mkdir(parents=True)
    (place / "out" / "beach" / "p1.jpg.1024.webp").write_bytes(dying.OLD)
    (place / "out" / "beach" / ".gs-deadbeef-0123456789abcdef").write_bytes(b"another supervisor's")
    create(str(place / dying.RECORDER), 1)


PREPARE = {"reap": prepare_reap, "publish": prepare_publish}


def test_a_reap_that_was_killed_anywhere_is_finished_by_the_next_one(tmp_path: Path) -> None:
    for place in at_each("reap", faults.REAP_POINTS, tmp_path):
        bed = Bed(place / "root")
        theirs = next(name for name in bed.names() if THEIRS in name)
        again = fill(place / "root" / name_of("3.1"))
        lock = hold(again)
        bed.sweep()
        assert bed.names() == sorted([theirs, again.name]), f"{place.name}: the dead are gone, the living are not"
        for kept in (theirs, again.name):
            assert sum(path.is_file() for path in (place / "root" / kept).rglob("*")) == 3
        assert (place / "photos" / "p1.jpg").read_bytes() == b"irreplaceable"
        assert bed.complaints == []
        os.close(lock)
        bed.root.close()


def test_a_publication_that_was_killed_anywhere_leaves_whole_outputs_and_nothing_unknown(tmp_path: Path) -> None:
    for place in at_each("publish", faults.PUBLISH_POINTS, tmp_path):
        beach = place / "out" / "beach"
        for label in dying.LABELS:
            final = beach / f"p1.jpg.{label}.webp"
            assert not final.exists() or final.read_bytes() in (dying.OLD, dying.NEW), f"{place.name}: half an output"
        reader = RecorderReader(str(place / dying.RECORDER), 1)
        record = reader.read(0)
        reader.close()
        remove_partial(record.partial, dying.TOKEN)
        unfinished = [path.name for path in beach.iterdir() if path.name.startswith(".gs-")]
        assert unfinished == [".gs-deadbeef-0123456789abcdef"], f"{place.name}: what was unfinished had been recorded"
        publisher = Publisher(os.fsencode(place / "out"), "beach/p1.jpg", dying.TOKEN, Silent(), replace=True)
        for label in dying.LABELS:
            publisher.publish(label, "webp", dying.NEW)
            assert (beach / f"p1.jpg.{label}.webp").read_bytes() == dying.NEW


class Silent:
    """Records nothing."""

    def partial(self, path: bytes) -> None:
        """As `Recorder.partial`."""
