"""A process that deletes one trashed directory, tells how far it is, and ends.

It is told two descriptors: the directory above, and the trashed one, with whose lock it holds off everybody else. Its
word is one line of JSON each so many files and at the end: files, bytes, faults, and whether that was all. It ends
when its parent does: the next supervisor finds the rest, and the lock free.
"""

import json
import os

from supervisor.mechanism.deleting.tree import Tally, delete

NICE = 10
"""As the workers': the supervisor comes first, and what is deleted is out of sight already."""
FILES_A_LINE = 1_000


def main(name: str, parent: int, directory: int, device: int, report: int, starter: int) -> None:
    """Deletes the directory `name` in the descriptor `parent`; `starter` is the process that it must not outlive."""
    os.nice(NICE)
    tally = Tally()
    for count, _ in enumerate(delete(parent, name, directory, device, tally), 1):
        if os.getppid() != starter:
            return
        if count % FILES_A_LINE == 0:
            _tell(report, tally, False)
    _tell(report, tally, True)


def _tell(report: int, tally: Tally, over: bool) -> None:
    line = json.dumps([tally.files, tally.bytes, [fault[:400] for fault in tally.faults], over])
    os.write(report, line.encode() + b"\n")
