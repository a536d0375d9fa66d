"""What a worker may touch, once it has set foot in the house: nothing but its images, its outputs, its temp directory.

A decoder reads what strangers made, and one day one of them takes it over. Without root, the kernel can make
a process forget its own rights: no_new_privs (no setuid program gives any back), Landlock (files by directory, TCP,
signals, abstract sockets), a seccomp filter (`workers.seccomp`: everything else that leads outside), resource limits.

Each holds for the thread that asks and those it starts later, and can only be tightened. Hence the order in
`workers.entry` (before ZeroMQ's thread), and hence the roots are arguments of a start: a worker whose rules lack
what its next lease needs is replaced, which a warm template makes cheap.

What this does not do: an OUT that holds the photos lets them be written; a submitted directory is readable as a
whole, hidden files included; file names and metadata (stat) can be read everywhere; existing descriptors
stay open (the log, the recorder's page, the socket to the supervisor).
"""

import ctypes
import errno
import os
import resource
import stat
import struct
from collections.abc import Iterable

from protocol import kernel
from protocol.kernel import Offer, SandboxMissing, SandboxMode
from protocol.paths import from_token
from workers import seccomp

MAX_FILE_BYTES = 64 * 1024**3
"""Largest file that a worker can write: libvips spills whole images, 500 megapixels of 16 bytes are 8 GB."""
MAX_DESCRIPTORS = 1024

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_ADD_RULE, _RESTRICT_SELF = 445, 446  # asm-generic/unistd.h
_RULE_PATH_BENEATH = 1  # linux/landlock.h, as all that follows
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILES_BY_ABI = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_BIND_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3

_READ = _READ_FILE | _READ_DIR
_RUN = _READ | _EXECUTE
_OUT = _READ | _WRITE_FILE | _MAKE_DIR | _MAKE_REG | _REMOVE_FILE | _TRUNCATE | _REFER
_TEMP = _OUT | _REMOVE_DIR
_DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL_DEV
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""Rights that a rule for a file (not a directory) may give; others make the kernel refuse the rule."""

_PROGRAMS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/nix/store", "/gnu/store")
_READABLE = (
    "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime", "/etc/alternatives", "/etc/ImageMagick-6", "/etc/ImageMagick-7",
    "/var/cache/fontconfig", "~/.fonts", "~/.local/share/fonts", "~/.cache/fontconfig",
    "/dev/urandom", "/dev/random", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm",
    "/sys/devices/system/cpu",
)  # fmt: skip
"""Beside the installation: the loader's cache, fonts for SVG, randomness, what libraries ask about the machine."""
_DEVICES = ("/dev/null", "/dev/zero")

_libc = ctypes.CDLL(None, use_errno=True)


def confine(
    mode: SandboxMode,
    *,
    read: Iterable[str],
    write: Iterable[str],
    temp_directory: str,
    library: Iterable[str] = (),
    offered: Offer | None = None,
) -> str:
    """Confines this thread and those it starts from now on, for good; returns the level reached (`off`, `none`,
    `landlock 6 + seccomp`).

    `read` (directories and files) and `write` (directories, made where they are not there) are path tokens;
    what cannot be opened is left out: the item that needs it will say why. `library` are further directories
    that operations read from. `offered` stands in for what the kernel says. Raises SandboxMissing, OSError.
    """
    if mode == "off":
        return "off"
    found = kernel.offer() if offered is None else offered
    if mode == "require" and (lacks := found.lacking()):
        raise SandboxMissing(lacks)
    _limit(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, MAX_DESCRIPTORS)
    if not (found.landlock_abi or found.seccomp):
        return found.level
    _call(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    if found.landlock_abi:
        _landlock(found.landlock_abi, list(read), list(write), temp_directory, list(library))
    if found.seccomp:
        seccomp.restrict(signals=found.landlock_abi < kernel.LANDLOCK_SCOPE_ABI)
    return found.level


def seal(level: str) -> None:
    """Ends the time of new connections, in every thread; to be called when the supervisor has been heard."""
    if "seccomp" in level:
        seccomp.seal()


def denies(path: bytes) -> bool:
    """Tells whether a file would be readable but for the sandbox: the kernel's permission check knows nothing of it,
    opening does."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError as error:
        return error.errno == errno.EACCES and os.access(path, os.R_OK)
    except OSError:
        return False
    return False


def _landlock(abi: int, read: list[str], write: list[str], temp_directory: str, library: list[str]) -> None:
    handled = 0
    for since, rights in _FILES_BY_ABI.items():
        handled |= rights if abi >= since else 0
    ruleset = _new_ruleset(abi, handled)
    try:
        for path in (*_PROGRAMS, *kernel.installation(), *library):
            _allow(ruleset, os.fsencode(path), _RUN & handled)
        for path in _READABLE:
            _allow(ruleset, os.fsencode(os.path.expanduser(path)), _READ & handled)
        for path in _DEVICES:
            _allow(ruleset, os.fsencode(path), _DEVICE & handled)
        for token in read:
            _allow(ruleset, from_token(token), _READ & handled)
        for token in write:
            path_bytes = from_token(token)
            _make(path_bytes)
            _allow(ruleset, path_bytes, _OUT & handled)
        _allow(ruleset, os.fsencode(temp_directory), _TEMP & handled)
        _call(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _new_ruleset(abi: int, handled: int) -> int:
    tcp = _BIND_AND_CONNECT_TCP if abi >= kernel.LANDLOCK_TCP_ABI else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= kernel.LANDLOCK_SCOPE_ABI else 0
    # An older kernel refuses a longer struct unless the rest is zero; what it does not know is zero here.
    attributes = struct.pack("=QQQ", handled, tcp, scoped)
    number: int = _libc.syscall(kernel.LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    return _call(number, "landlock_create_ruleset")


def _allow(ruleset: int, path: bytes, rights: int) -> None:
    """Allows the rights beneath a path. A link is followed: the rule is about what it leads to."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, or not ours to see: nothing to allow
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_A_FILE
        rule = struct.pack("=Qi", rights, opened)
        _call(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0), f"landlock_add_rule({path!r})")
    finally:
        os.close(opened)


def _make(path: bytes) -> None:
    """Makes an output root while that is still possible; whoever writes into it will say why it is not there."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError:
        pass


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _call(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return answer
