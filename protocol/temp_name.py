"""The name of a temp directory is its label: who made it, told by nothing that could be forged, lost or half-written.

    gs-TOKEN-RUN-SLOT.INCARNATION-PID-START-HOST       gs-0badcafe-5f3a9c1e-2.17-4711-88123-9a41c0de77b2

TOKEN is the state directory's, RUN one life of its supervisor, PID the worker's. START is when that process began
(field 22 of /proc/PID/stat, in ticks since boot): the kernel gives a pid again, never with the same start. HOST is a
digest of the boot id and the pid namespace: beyond either, pids say nothing. mkdir is atomic, so a directory is never
there without its label. What is being deleted is called gs-TOKEN-RUN-trash.NUMBER-0-0-0.
"""

import hashlib
import os
import re
from functools import cache

import msgspec

BOOT_ID = "/proc/sys/kernel/random/boot_id"
PID_NAMESPACE = "/proc/self/ns/pid"

_NAME = re.compile(
    r"gs-(?P<token>[0-9a-f]{8})-(?P<run>[0-9a-f]{8})-(?P<place>\d{1,6}\.\d{1,12}|trash\.\d{1,18})"
    r"-(?P<pid>\d{1,10})-(?P<start>\d{1,20})-(?P<host>[0-9a-f]{12}|0)"
)


class TempName(msgspec.Struct, frozen=True, kw_only=True):
    """A name taken apart; `start_ticks` and `host` are "0" where the system tells neither."""

    token: str
    run: str
    place: str
    """`SLOT.INCARNATION`, or `trash.NUMBER`."""
    pid: int
    start_ticks: int
    host: str

    @property
    def is_trash(self) -> bool:
        """Whether it is what is left of a directory that is being deleted."""
        return self.place.startswith("trash.")

    def text(self) -> str:
        """Returns the name."""
        return f"{stem(self.token, self.run, self.place)}-{self.pid}-{self.start_ticks}-{self.host}"


def stem(token: str, run: str, place: str) -> str:
    """Returns the part of the name that is known before the process is."""
    return f"gs-{token}-{run}-{place}"


def trash_name(token: str, run: str, number: int) -> str:
    """Returns the name of something that is being deleted."""
    return f"{stem(token, run, f'trash.{number}')}-0-0-0"


def labelled(path: str) -> str:
    """Returns the path of this process's own temp directory, given its stem."""
    pid = os.getpid()
    return f"{path}-{pid}-{start_ticks(pid) or 0}-{host()}"


def parse(name: str) -> TempName | None:
    """Takes a name apart; None when it is none of ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return TempName(
        token=found["token"],
        run=found["run"],
        place=found["place"],
        pid=int(found["pid"]),
        start_ticks=int(found["start"]),
        host=found["host"],
    )


@cache
def host() -> str:
    """Returns twelve hexadecimal digits for this boot and pid namespace; "0" where the system tells neither."""
    try:
        with open(BOOT_ID, "rb") as file:
            boot = file.read(64).strip()
        return hashlib.sha256(boot + os.readlink(PID_NAMESPACE).encode()).hexdigest()[:12]
    except OSError:
        return "0"


def start_ticks(pid: int) -> int | None:
    """Returns when a process began, in ticks since boot; None when it is gone (or a zombie), or cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The process's name is in parentheses and may hold anything, spaces and parentheses too.
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in (b"Z", b"X", b"x"):
        return None
    return int(fields[19])
