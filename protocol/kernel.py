"""What this kernel offers to confine a process without root: asked of the kernel, never guessed from its version.

A distribution may build Landlock in and leave it off, a container may filter the system calls away; only the
answer counts. Shared by both sides: a worker confines itself by it, the supervisor refuses a start that requires
more, and tells what there is.
"""

import os
import sys
from typing import Literal

import msgspec

from protocol.errors import MachineError

SandboxMode = Literal["require", "best-effort", "off"]
"""require: no worker without a whole sandbox. best-effort: as much of it as there is. off: none."""

LANDLOCK_CREATE_RULESET = 444  # asm-generic/unistd.h, the same on all machines
LANDLOCK_TRUNCATE_ABI = 3
LANDLOCK_TCP_ABI = 4
LANDLOCK_SCOPE_ABI = 6
SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
"""Number of seccomp(2) on the machines that a filter is written for."""

_CREATE_RULESET_VERSION = 1  # linux/landlock.h
_GET_ACTION_AVAIL = 2  # linux/seccomp.h
_RET_ERRNO = 0x00050000


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What there is. `landlock_abi` 0: none."""

    landlock_abi: int
    seccomp: bool

    @property
    def level(self) -> str:
        """The layers in a few words: `landlock 6 + seccomp`, `none`."""
        layers = [f"landlock {self.landlock_abi}"] if self.landlock_abi else []
        return " + ".join([*layers, *(["seccomp"] if self.seccomp else [])]) or "none"

    def lacking(self) -> list[str]:
        """Returns what a whole sandbox lacks here, a sentence each; empty when it is whole."""
        lacks = []
        if not self.landlock_abi:
            lacks.append(
                "files are not confined: the kernel has no Landlock (Linux 5.13 or later, `landlock` among the "
                "kernel's lsm=; in a container, a seccomp profile that allows it)"
            )
        elif self.landlock_abi < LANDLOCK_TRUNCATE_ABI:
            lacks.append(
                f"foreign files could be truncated: Landlock {self.landlock_abi} cannot forbid it (Linux 6.2 can)"
            )
        if not self.seccomp:
            lacks.append(
                "the network beyond TCP and other processes are not shut out: no seccomp filter is possible "
                f"(it is written for {' and '.join(SECCOMP_CALL)}, this is {os.uname().machine or 'unknown'})"
            )
        return lacks


class SandboxMissing(MachineError):
    """A whole sandbox is required, and this kernel has none."""

    code = "sandbox_missing"
    exit_code = 4

    def __init__(self, lacks: list[str]) -> None:
        super().__init__(
            "a sandbox is required (--sandbox require), and this machine has no whole one: "
            + "; ".join(lacks)
            + "; --sandbox best-effort goes on with what there is"
        )


def offer() -> Offer:
    """Asks the kernel."""
    if sys.platform != "linux":
        return Offer(landlock_abi=0, seccomp=False)
    import ctypes  # clients know the modes of a sandbox and ask no kernel

    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    call = SECCOMP_CALL.get(os.uname().machine)
    filters = False
    if call is not None and ctypes.sizeof(ctypes.c_void_p) == 8 and sys.byteorder == "little":
        action = ctypes.c_uint32(_RET_ERRNO)
        filters = libc.syscall(call, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0
    return Offer(landlock_abi=max(0, abi), seccomp=filters)


def installation() -> list[str]:
    """Returns the directories that Python and our packages were loaded from, as far as they are not a person's home
    or above it: a module lying in $HOME must not open the whole of it."""
    homes = {os.path.realpath(os.path.expanduser("~")), "/root"}
    found = []
    for path in dict.fromkeys([sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]):
        real = os.path.realpath(path) if path else ""
        if real and real != "/" and not any(f"{home}/".startswith(f"{real}/") for home in homes):
            found.append(path)
    return found
