"""Which directory may be the temp root, and the names in it."""

import os
import pwd
import secrets
import stat

from protocol.errors import TempRootUnusable
from protocol.temp_name import stem, trash_name
from supervisor.policy.temp import Room

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FIRST_PERSON_UID = 1000
"""login.defs(5), UID_MIN: homes below it belong to services, and may be /tmp or /."""

SYSTEM = frozenset(
    ("/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/run", "/sbin",
     "/srv", "/sys", "/usr", "/var")
)  # fmt: skip
"""Where root, who owns them all, surely means a directory below."""


class TempRoot:
    """An opened temp root. `token` is the state directory's; `run` marks this life of its supervisor."""

    def __init__(self, path: str, token: str, *, private: bool, make: bool = True) -> None:
        """Opens the root, making it (0700) if `make`. `private`: nobody else puts anything there.

        Raises TempRootUnusable with the reason and the way out.
        """
        self.path = checked_root(path, make=make)
        self.token = token
        self.run = secrets.token_hex(4)
        self.private = private
        self._trashed = 0
        try:
            self.fd = os.open(self.path, _OPEN)
        except OSError as error:
            raise _unusable(path, error.strerror) from error
        self.device = os.fstat(self.fd).st_dev

    def worker_stem(self, slot: int, incarnation: int) -> str:
        """Returns the path of a worker's directory up to the label that the worker adds."""
        return os.path.join(self.path, stem(self.token, self.run, f"{slot}.{incarnation}"))

    def next_trash_name(self) -> str:
        """Returns a name that nothing has."""
        self._trashed += 1
        return trash_name(self.token, self.run, self._trashed)

    def names(self) -> list[str]:
        """Returns what is in the root."""
        return os.listdir(self.fd)

    def room(self) -> Room:
        """Returns what is left on its file system for such as us."""
        found = os.fstatvfs(self.fd)
        return Room(
            free_bytes=found.f_bavail * found.f_frsize,
            size_bytes=found.f_blocks * found.f_frsize,
            free_inodes=found.f_favail,
            inodes=found.f_files,
        )

    def close(self) -> None:
        """Lets the descriptor go."""
        os.close(self.fd)


def checked_root(path: str, *, make: bool) -> str:
    """Returns the real path of a directory that may be a temp root. Raises TempRootUnusable."""
    real = os.path.realpath(path)
    if real == "/":
        raise _unusable(path, "it is the root of the file system")
    if real.rstrip("/") in SYSTEM or real.startswith(("/proc/", "/sys/")):
        raise _unusable(path, "it is a directory of the system")
    for home in _homes():
        if home == real or home.startswith(f"{real}/"):
            raise _unusable(path, f"it is the home directory {home}" if home == real else f"it holds the home {home}")
    try:
        if make:
            os.makedirs(os.path.dirname(real), exist_ok=True)
            try:
                os.mkdir(real, 0o700)
            except FileExistsError:
                pass  # what it is, is looked at below
        found = os.lstat(real)
    except OSError as error:
        raise _unusable(path, error.strerror) from error
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(path, "it is not a directory")
    if found.st_uid != os.geteuid():
        what = "a mount" if os.path.ismount(real) else "it"
        raise _unusable(path, f"{what} belongs to the user with uid {found.st_uid}, not to us ({os.geteuid()})")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise _unusable(path, f"others may write to it (mode {stat.S_IMODE(found.st_mode):o})")
    return real


def _homes() -> set[str]:
    me = os.geteuid()
    found = {entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid in (0, me) or entry.pw_uid >= FIRST_PERSON_UID}
    found.add(os.path.expanduser("~"))
    return {os.path.realpath(home) for home in found if home.startswith("/") and home.strip("/")}


def _unusable(path: str, why: str | None) -> TempRootUnusable:
    return TempRootUnusable(path, why or "the system refuses it")
