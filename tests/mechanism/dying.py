"""A child that reaps, or publishes, and kills itself at a named point: `python -m ... KIND DIRECTORY POINT COUNT`.

It prints `reached` and dies by SIGKILL when the point is reached for the COUNT-th time; `done` when it never was.
"""

import os
import signal
import sys
from pathlib import Path

from protocol import faults
from protocol.recorder import Recorder
from tests.mechanism.temp_bed import Bed
from workers.publish import Publisher

TOKEN = "0badcafe"
RECORDER = "recorder.bin"
LABELS = ("256", "1024")
OLD, NEW = b"an older one of ours", b"pixels" * 50_000


def reap(directory: Path) -> None:
    """Sweeps a temp root."""
    Bed(directory / "root").sweep()


def publish(directory: Path) -> None:
    """Publishes two outputs of an image, the second over an older one of ours."""
    recorder = Recorder(str(directory / RECORDER), 0, 1)
    recorder.begin(7, "/photos/p1.jpg", 1.0)
    publisher = Publisher(os.fsencode(directory / "out"), "beach/p1.jpg", TOKEN, recorder, replace=True)
    for label in LABELS:
        publisher.publish(label, "webp", NEW)
    recorder.end()


def main(kind: str, directory: str, point: str, count: int) -> None:
    """Works until the point is reached."""
    left = count

    def die(reached: str) -> None:
        nonlocal left
        if reached == point:
            left -= 1
            if left == 0:
                print("reached", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    faults.call_at_points(die)
    {"reap": reap, "publish": publish}[kind](Path(directory))
    faults.call_at_points(None)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
