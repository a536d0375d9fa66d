"""A child that works on a cache and is killed by itself at a named point: `python -m ... DIRECTORY POINT COUNT`.

It prints `reached` and dies by SIGKILL when the point is reached for the COUNT-th time; `done` when it never was.
"""

import os
import signal
import sys
from pathlib import Path

from protocol import faults
from tests.mechanism.cache.bed import SMALL, Bed

LIMIT_BYTES = 260_000
NAMES = [f"{number}.jpg" for number in range(8)]


def work(bed: Bed) -> None:
    """Keeps more than fits, then delivers: some anew, some over what is ours already, and culls all the while."""
    for number, name in enumerate(NAMES):
        bed.keep(bed.made(name, SMALL if number % 4 == 3 else 40_000))
    for name in NAMES:
        for output in bed.out.glob(f"{name}.*"):
            output.unlink()
    bed.find(*NAMES)
    for output in bed.out.iterdir():
        output.write_bytes(b"an older one of ours")
    bed.find(*NAMES, owned=True)


def main(directory: str, point: str, count: int) -> None:
    """Works until the point is reached."""
    left = count

    def die(reached: str) -> None:
        nonlocal left
        if reached == point:
            left -= 1
            if left == 0:
                print("reached", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    bed = Bed(Path(directory), limit_bytes=LIMIT_BYTES)
    faults.call_at_points(die)
    work(bed)
    faults.call_at_points(None)
    bed.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
