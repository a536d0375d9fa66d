"""Journals in a loop until it is killed; says on standard output what was acknowledged to it.

Run as `python -m tests.mechanism.journal_child DIRECTORY ROUND`.
"""

import os
import sys
from typing import Any

from supervisor.policy import commands as c
from supervisor.policy import events as e
from tests.mechanism.journal_bed import Bed, settlement

NAMES_A_CHUNK = 20


def names_of(turn: int, chunk: int) -> list[str]:
    """The names of a chunk, so that the parent knows them too."""
    return [f"{turn}/{chunk}/{n}.jpg" for n in range(NAMES_A_CHUNK)]


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main(directory: str, turn: int) -> None:
    bed = Bed(directory)
    chunk = bed.create("b1", resume=True).record.next_chunk
    say("ready")
    while True:
        bed.send(names_of(turn, chunk), chunk)
        bed.journal.submit(c.FetchItems(batch="b1", after=0, limit=7))
        told: list[Any] = [bed.expect(e.ItemsInserted), bed.expect(e.ItemsFetched)]
        say(f"chunk {chunk}")
        for item in told[1].items:
            bed.journal.submit(c.SettleItems(settlements=[settlement(item.id)]))
        left = len(told[1].items)
        while left:
            settled = bed.expect(e.ItemsCommitted).settlements
            left -= len(settled)
            for each in settled:
                say(f"settled {each.id}")
        chunk += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
