"""What becomes of a temp directory, and when a filling disk stops the pool.

A directory is its worker's while its lock is held (flock on the directory itself: released by the kernel, however
the worker died) or while the process in its label lives. Neither: it is stale. Our own stale ones go at once; those
of another supervisor that shares the root only after `abandoned_seconds`, for that supervisor reaps its own. A
directory so young that its maker may be between mkdir and flock is nobody's business but its own worker's. What is
not named like ours is never touched in a shared root; in one that is ours alone it goes by age.

The disk: admission stops when less than `pause_free_bytes` (or inodes) is left and goes on above `resume_free_bytes`;
both shrink with a small file system. The closer to the edge, the sooner the next look.
"""

from typing import Literal

import msgspec

from supervisor.policy.sizes import MB, human

Lock = Literal["free", "held", "unknown"]
Process = Literal["alive", "gone", "elsewhere"]
"""`elsewhere`: the label is of another boot or pid namespace (or the system tells nothing): the lock decides."""


class TempSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The table [temp] of the settings; bytes, seconds, numbers of inodes."""

    pause_free_bytes: int = 256 * MB
    """Spilling at 1 GB/s, one worker fills this in a quarter of a second: enough for the looks to see it come."""
    resume_free_bytes: int = 512 * MB
    pause_free_inodes: int = 2_000
    resume_free_inodes: int = 4_000
    small_disk_share: float = 0.05
    """On a small file system the marks are at most this share of it free (twice the share to go on)."""
    abandoned_seconds: float = 3600.0
    stray_seconds: float = 86_400.0
    """Age of files of unknown origin in a temp directory that is ours alone."""
    sweep_seconds: float = 60.0
    grace_seconds: float = 30.0
    """From mkdir to flock a worker needs microseconds; a stopped machine may stretch them."""
    look_min_seconds: float = 0.05
    look_max_seconds: float = 5.0
    """With 10 GB to spare and more: those cannot be filled meanwhile."""

    def check(self) -> list[str]:
        """Returns a sentence for each fault."""
        faults = []
        for name in ("bytes", "inodes"):
            pause, resume = getattr(self, f"pause_free_{name}"), getattr(self, f"resume_free_{name}")
            if not 0 <= pause < resume:
                faults.append(f"resume_free_{name} ({resume:,}) must be above pause_free_{name} ({pause:,})")
        if not 0 < self.small_disk_share <= 0.4:
            faults.append(f"small_disk_share must be above 0 and at most 0.4, not {self.small_disk_share:g}")
        if not 0 < self.look_min_seconds <= self.look_max_seconds:
            faults.append("look_min_seconds must be above 0 and at most look_max_seconds")
        faults += [
            f"{name} must not be negative"
            for name in ("abandoned_seconds", "stray_seconds", "grace_seconds")
            if getattr(self, name) < 0
        ]
        if self.sweep_seconds <= 0:
            faults.append("sweep_seconds must be above 0")
        return faults


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One name in the temp root, as it was found. `token` is None for a name that is not of our form."""

    token: str | None
    is_trash: bool = False
    is_directory: bool = True
    age_seconds: float = 0.0
    lock: Lock = "free"
    process: Process = "gone"


class Fate(msgspec.Struct, frozen=True):
    """What is done with an entry, and why."""

    reap: bool
    reason: str


def judge(entry: Entry, our_token: str, private: bool, pressed: bool, settings: TempSettings) -> Fate:
    """Returns the fate of an entry. `private`: nobody else puts anything into this root; `pressed`: the disk is
    filling, so what may go later goes now."""
    if entry.token is None:
        if not private:
            return Fate(False, "not ours")
        old = entry.age_seconds >= settings.stray_seconds
        return Fate(old, f"a stray file, {entry.age_seconds:.0f} s old")
    if not entry.is_directory:
        # Our workers make directories only; somebody put a file or a link under such a name.
        return Fate(entry.token == our_token, "no directory, under a name of ours")
    if entry.lock != "free":
        return Fate(False, "in use: its lock is held")
    if entry.is_trash:
        return _trash(entry, our_token, pressed, settings)
    if entry.process == "alive":
        return Fate(False, "in use: its worker lives")
    if entry.process == "elsewhere" and entry.age_seconds < settings.grace_seconds:
        return Fate(False, "so young that it may be in the making")
    if entry.token == our_token:
        return Fate(True, "its worker is gone")
    if pressed or entry.age_seconds >= settings.abandoned_seconds:
        return Fate(True, f"abandoned by another supervisor, {entry.age_seconds:.0f} s old")
    return Fate(False, "of another supervisor, which reaps its own")


def _trash(entry: Entry, our_token: str, pressed: bool, settings: TempSettings) -> Fate:
    if entry.token == our_token:
        return Fate(True, "trash of ours")
    if pressed or entry.age_seconds >= settings.abandoned_seconds:
        return Fate(True, "trash that another supervisor left")
    return Fate(False, "trash of another supervisor")


# ---- the disk ------------------------------------------------------------------------------------


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The file system of the temp root; `inodes` is 0 where it does not count them."""

    free_bytes: int
    size_bytes: int
    free_inodes: int = 0
    inodes: int = 0


class Watermarks:
    """Whether the disk is too full to go on. Entered at the high mark of use, left at the low one."""

    def __init__(self, settings: TempSettings) -> None:
        self.settings = settings
        self.full: str | None = None

    def update(self, room: Room) -> str | None:
        """Takes a look in; returns the reason for a pause, None when there is none."""
        settings = self.settings
        share = settings.small_disk_share * (1 if self.full is None else 2)
        bytes_wanted = settings.pause_free_bytes if self.full is None else settings.resume_free_bytes
        inodes_wanted = settings.pause_free_inodes if self.full is None else settings.resume_free_inodes
        bytes_wanted = min(bytes_wanted, int(room.size_bytes * share))
        inodes_wanted = min(inodes_wanted, int(room.inodes * share))
        low = []
        if room.free_bytes < bytes_wanted:
            low.append(f"{human(room.free_bytes)} are free there, {human(bytes_wanted)} wanted")
        if room.inodes and room.free_inodes < inodes_wanted:
            low.append(f"{room.free_inodes:,} files can be made there, {inodes_wanted:,} wanted")
        self.full = "; ".join(low) or None
        return self.full

    def next_look_seconds(self, room: Room) -> float:
        """Returns when to look again: sooner when little is left, at half the time that 1 GB/s would need."""
        settings = self.settings
        above = room.free_bytes - min(settings.pause_free_bytes, int(room.size_bytes * settings.small_disk_share))
        return max(settings.look_min_seconds, min(settings.look_max_seconds, above / 2e9))
