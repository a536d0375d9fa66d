"""Small disks that can be filled: tmpfs mounts of a test, always unmounted."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

FILL_BYTES = 64 * 1024


@contextlib.contextmanager
def small_disk(directory: str, size_bytes: int, inodes: int = 0) -> Iterator[str]:
    """Mounts a tmpfs at `directory` (made if need be), of so many `inodes` (0: any number); skips the test, naming what
    is missing, where it cannot."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    os.makedirs(directory, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},nr_inodes={inodes},mode=700", "tmpfs", directory],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def fill(directory: str, leave_bytes: int = 0) -> str:
    """Fills the disk of a directory by one file, but for `leave_bytes`; returns the file's name."""
    path = os.path.join(directory, "ballast")
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\xa5" * FILL_BYTES)
        except OSError:
            pass  # full, which is the aim
        size = file.seek(0, os.SEEK_END)
        file.truncate(max(0, size - leave_bytes))
    return path


def fill_inodes(directory: str) -> str:
    """Takes all inodes of the disk of a directory; returns the directory of the files that do."""
    ballast = os.path.join(directory, "ballast")
    os.mkdir(ballast)
    number = 0
    with contextlib.suppress(OSError):  # full, which is the aim
        while True:
            os.close(os.open(os.path.join(ballast, str(number)), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            number += 1
    return ballast
