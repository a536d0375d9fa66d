"""The state directory: one supervisor's queue, recorder, lock and address, and how others find them.

A lock (flock) on one file in it makes the supervisor the only one; the file holds its pid so that a second one
can name it. The lock is the kernel's, so the death of the holder releases it, however it died. Network file
systems are refused: SQLite's write-ahead log needs memory shared with the disk, and their locks and syncs
promise less than they seem to.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
import time

import msgspec

from protocol.errors import StateDirectoryBusy, StateDirectoryUnusable

HISTORY_FILE = "history.bin"
MOUNTS = "/proc/self/mountinfo"
NETWORK_TYPES = {
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs",
}  # fmt: skip
NETWORK_FUSE = {
    "ceph", "davfs2", "gcsfuse", "glusterfs", "goofys", "juicefs", "rclone", "s3fs", "smbnetfs", "sshfs",
}  # fmt: skip
"""File systems in user space (`fuse.NAME`) whose files are elsewhere."""

LEARNED_BYTES = 8 * 1024 * 1024
LOCK_TRIES = 5
LOCK_PAUSE_SECONDS = 0.02


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running supervisor is reached."""

    frontend: str
    events: str
    pid: int
    version: str


class StateDirectory:
    """The names in a state directory, and the lock on it. Nothing is made before `acquire`."""

    def __init__(self, path: str, mounts: str = MOUNTS) -> None:
        self.path = os.path.abspath(path)
        self.recorder_path = os.path.join(self.path, "recorder.bin")
        self.history_path = os.path.join(self.path, HISTORY_FILE)
        self.lock_path = os.path.join(self.path, "lock")
        self.endpoint_path = os.path.join(self.path, "endpoint.json")
        self.learned_path = os.path.join(self.path, "learned.json")
        self.token_path = os.path.join(self.path, "token")
        self.run_directory = os.path.join(self.path, "run")
        self.temp_directory = os.path.join(self.path, "temp")
        self._mounts = mounts
        self._lock: int | None = None
        self._token = ""

    def acquire(self) -> None:
        """Makes the directory (0700) and takes it. Raises StateDirectoryBusy that names the holder's pid, and
        StateDirectoryUnusable: network file system, no right, not a directory."""
        if self._lock is not None:
            return
        self._refuse_network()
        try:
            for directory in (self.path, self.run_directory, self.temp_directory):
                _make_private(directory)
            lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            _lock_alone(lock)
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
            self._token = self._make_token()
        except BlockingIOError as error:
            owner = _read_pid(lock)
            os.close(lock)
            raise StateDirectoryBusy(self.path, owner) from error
        except OSError as error:
            os.close(lock)
            raise _unusable(self.path, error) from error
        self._lock = lock

    def release(self) -> None:
        """Gives the directory back: takes the address away, then the lock. Harmless when not held."""
        if self._lock is None:
            return
        self.remove_endpoint()
        os.ftruncate(self._lock, 0)
        os.close(self._lock)
        self._lock = None

    def holder(self) -> int | None:
        """Returns the pid in the lock file when the directory is held by a process, else None."""
        try:
            lock = os.open(self.lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(lock)
        finally:
            os.close(lock)
        return None

    @property
    def token(self) -> str:
        """Eight hexadecimal digits, made once: they mark what this state directory owns elsewhere."""
        if not self._token:
            self._token = self._read_token()
        return self._token

    def write_endpoint(self, endpoint: Endpoint) -> None:
        """Says where the supervisor is reached; a reader sees the old address or the new one, never half of it."""
        unfinished = f"{self.endpoint_path}.new"
        try:
            with open(unfinished, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(msgspec.json.encode(endpoint))
            os.replace(unfinished, self.endpoint_path)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def read_endpoint(self) -> Endpoint | None:
        """Returns where a supervisor says it is reached; None when none does. It may be dead: see `holder`."""
        try:
            with open(self.endpoint_path, "rb") as file:
                return msgspec.json.decode(file.read(64 * 1024), type=Endpoint)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None
        except OSError as error:
            raise _unusable(self.path, error) from error

    def keep_learned(self, content: bytes) -> None:
        """Writes down what was learned; after a crash the file is the old one or the new one. Raises OSError."""
        unfinished = f"{self.learned_path}.new"
        with open(unfinished, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.learned_path)

    def learned(self) -> bytes | None:
        """Returns what was written down, None where nothing was; a file beyond LEARNED_BYTES is not read to its end,
        one that cannot be read is empty: nobody's start fails for it."""
        try:
            with open(self.learned_path, "rb") as file:
                return file.read(LEARNED_BYTES)
        except FileNotFoundError:
            return None
        except OSError:
            return b""

    def remove_endpoint(self) -> None:
        """Says that no supervisor is reached here any more."""
        try:
            os.unlink(self.endpoint_path)
        except OSError:
            pass  # a stale address is told from a live one by the lock and by the socket

    def _refuse_network(self) -> None:
        kind = file_system_type(self.path, self._mounts)
        if kind is not None and is_network(kind):
            raise StateDirectoryUnusable(
                f"the state directory {self.path} is on a network file system ({kind}), where the journal cannot "
                "be kept safe; choose a directory on a local disk with --state (images and outputs may stay)"
            )

    def _make_token(self) -> str:
        found = self._read_token()
        if found:
            return found
        token = secrets.token_hex(4)
        unfinished = f"{self.token_path}.new"
        with open(unfinished, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.token_path)
        return token

    def _read_token(self) -> str:
        try:
            with open(self.token_path, encoding="ascii", errors="replace") as file:
                text = file.read(64).strip()
        except FileNotFoundError:
            return ""
        return text if re.fullmatch("[0-9a-f]{8}", text) else ""


def file_system_type(path: str, mounts: str = MOUNTS) -> str | None:
    """Returns the type of the file system a path is (or would be) on; None where the system does not say."""
    real = os.fsencode(os.path.realpath(path))
    try:
        with open(mounts, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    best, kind = b"", None
    for line in lines:
        before, dash, after = line.partition(b" - ")
        fields = before.split()
        if not dash or len(fields) < 5 or not after.split():
            continue
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields[4])
        # A later mount on the same point hides the earlier one.
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip(b"/") + b"/")):
            best, kind = point, after.split()[0].decode("ascii", "replace")
    return kind


def is_network(kind: str) -> bool:
    """Tells whether files of this type of file system are kept on another machine."""
    family, _, name = kind.partition(".")
    return name in NETWORK_FUSE if family in ("fuse", "fuseblk") else kind in NETWORK_TYPES


def make_private_directory(directory: str) -> None:
    """Makes a directory for sockets outside the state directory. Raises StateDirectoryUnusable where it cannot be
    ours alone: below a directory that others may write to, someone else may have made one of that name."""
    try:
        _make_private(directory)
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "is not a directory of ours that others cannot enter", directory)
    except OSError as error:
        raise _unusable(directory, error) from error


def _make_private(directory: str) -> None:
    """Makes a directory 0700, whatever the umask; one that is there keeps its mode, but must be a directory."""
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory, 0o700)
        os.chmod(directory, 0o700)
    except FileExistsError:
        if not os.path.isdir(directory):
            raise NotADirectoryError(errno.ENOTDIR, "is not a directory", directory) from None


def _lock_alone(lock: int) -> None:
    """Takes the lock. Others may look whether it is held (`holder`), which itself holds it for a moment."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_pid(lock: int) -> int | None:
    text = os.pread(lock, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _unusable(path: str, error: OSError) -> StateDirectoryUnusable:
    return StateDirectoryUnusable(
        f"the state directory {path} cannot be used: {error.filename or path}: {error.strerror}; "
        "check its rights and its disk, or choose another one with --state"
    )
