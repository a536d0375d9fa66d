"""Operations that misbehave on purpose, for tests, the demo and the stress command.

Each is loaded only where a recipe names it, and spares every file whose name does not match `only`.
"""

import ctypes
import fnmatch
import os
import signal
import sys
import time
from typing import Any, Literal

from workers.operations import Operation, Parameters, Work

_PIECE_BYTES = 1 << 20
_CRUMB_BYTES = 3_000
_malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(("malloc", ctypes.CDLL(None)))
_kept: list[bytes] = []
_held: list[bytes] = []
_crumbs: list[bytes] = []


class Misbehaviour(Parameters, frozen=True, kw_only=True):
    """`only`: a pattern (fnmatch) of the file names it strikes."""

    only: str = "*"


class Crash(Misbehaviour, frozen=True, kw_only=True):
    """`signal`: the number of the signal to die by (11: SIGSEGV)."""

    signal: int = signal.SIGSEGV.value


class Exit(Misbehaviour, frozen=True, kw_only=True):
    """`code`: exit status, 0 to 255."""

    code: int = 1


class Hang(Misbehaviour, frozen=True, kw_only=True):
    """`seconds`: how long, 0 for ever; `busy`: burning the processor."""

    seconds: float = 0.0
    busy: bool = False


class Litter(Misbehaviour, frozen=True, kw_only=True):
    """`files` of `bytes` left in the temp directory, untracked; then `seconds` of sleep."""

    files: int = 10
    bytes: int = 4096
    seconds: float = 0.0


class Leak(Misbehaviour, frozen=True, kw_only=True):
    """`bytes`: kept for ever at each item, by Python, or `native`: taken from the C library and forgotten."""

    bytes: int = 10_000_000
    native: bool = False


class Allocate(Misbehaviour, frozen=True, kw_only=True):
    """`bytes` at `bytes_per_second` (0: at once), held `seconds` longer, until the item's end or for ever."""

    bytes: int = 100_000_000
    bytes_per_second: int = 0
    seconds: float = 0.0
    hold: Literal["item", "ever"] = "item"


class Hold(Misbehaviour, frozen=True, kw_only=True):
    """`bytes`: held from the worker's first item to its end, as a model would be."""

    bytes: int = 100_000_000


class Fragment(Misbehaviour, frozen=True, kw_only=True):
    """`bytes` taken in small pieces, of which every other one is kept until the next item."""

    bytes: int = 20_000_000


class Borrow(Misbehaviour, frozen=True, kw_only=True):
    """`bytes` are asked for, `at_least` must be had, and as many are taken as were granted, for `seconds`."""

    bytes: int = 100_000_000
    at_least: int = 0
    seconds: float = 0.0


class Raise(Misbehaviour, frozen=True, kw_only=True):
    """`message`: of the unexpected exception."""

    message: str = "unexpected on purpose"


def _strikes(work: Work, parameters: Misbehaviour) -> bool:
    return fnmatch.fnmatch(work.name.decode("utf-8", "replace"), parameters.only)


def _crash(work: Work, parameters: Crash) -> None:
    if _strikes(work, parameters):
        if parameters.signal not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(parameters.signal, signal.SIG_DFL)
        os.kill(os.getpid(), parameters.signal)


def _exit(work: Work, parameters: Exit) -> None:
    if _strikes(work, parameters):
        sys.stderr.flush()
        os._exit(parameters.code)


def _hang(work: Work, parameters: Hang) -> None:
    if not _strikes(work, parameters):
        return
    end = time.monotonic() + (parameters.seconds or float("inf"))
    while (left := end - time.monotonic()) > 0:
        if not parameters.busy:
            time.sleep(min(left, 3600.0))


def _litter(work: Work, parameters: Litter) -> None:
    if not _strikes(work, parameters):
        return
    content = b"\xa5" * parameters.bytes
    for number in range(parameters.files):
        descriptor = os.open(os.path.join(work.scratch.directory, f"{work.name!r} {number}"), os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, content)
        os.close(descriptor)
    time.sleep(parameters.seconds)


def _leak(work: Work, parameters: Leak) -> None:
    if not _strikes(work, parameters):
        return
    if parameters.native:
        taken = _malloc(parameters.bytes)
        if not taken:
            raise MemoryError(f"the C library has no {parameters.bytes:,} bytes")
        ctypes.memset(taken, 0xA5, parameters.bytes)
    else:
        _kept.append(b"\xa5" * parameters.bytes)  # not zeros: the kernel lends those without giving memory


def _allocate(work: Work, parameters: Allocate) -> None:
    if not _strikes(work, parameters):
        return
    pieces: list[bytes] = _kept if parameters.hold == "ever" else []
    started, taken = time.monotonic(), 0
    while taken < parameters.bytes:
        size = min(_PIECE_BYTES, parameters.bytes - taken)
        pieces.append(b"\xa5" * size)
        taken += size
        if parameters.bytes_per_second:
            ahead = started + taken / parameters.bytes_per_second - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
    time.sleep(parameters.seconds)


def _hold(work: Work, parameters: Hold) -> None:
    if _strikes(work, parameters):
        while len(_held) * _PIECE_BYTES < parameters.bytes:
            _held.append(b"\xa5" * _PIECE_BYTES)


def _fragment(work: Work, parameters: Fragment) -> None:
    if _strikes(work, parameters):
        pieces = [b"\xa5" * _CRUMB_BYTES for _ in range(parameters.bytes // _CRUMB_BYTES)]
        _crumbs[:] = pieces[::2]


def _ignore_terminate(work: Work, parameters: Hang) -> None:
    if _strikes(work, parameters):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _hang(work, parameters)


def _borrow(work: Work, parameters: Borrow) -> dict[str, int] | None:
    if not _strikes(work, parameters):
        return None
    with work.memory(parameters.bytes, at_least=parameters.at_least, purpose="test") as lease:
        taken = bytearray(lease.bytes)
        taken[::4096] = b"x" * len(taken[::4096])
        time.sleep(parameters.seconds)
        return {"bytes": lease.bytes}


def _error(work: Work, parameters: Raise) -> None:
    if _strikes(work, parameters):
        raise RuntimeError(parameters.message)


def _check_signal(parameters: Crash) -> None:
    if parameters.signal not in signal.valid_signals():
        raise ValueError(f"signal: a number of this machine's signals, not {parameters.signal}")


def _check_exit(parameters: Exit) -> None:
    if not 0 <= parameters.code <= 255:
        raise ValueError(f"code: 0 to 255, not {parameters.code}")


def _check_positive(parameters: Any) -> None:
    for name in parameters.__struct_fields__:
        value = getattr(parameters, name)
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{name}: at least 0, not {value}")


OPERATIONS = (
    Operation(name="misbehave.crash", version=1, reads="name", run=_crash, parameters=Crash, check=_check_signal),
    Operation(name="misbehave.exit", version=1, reads="name", run=_exit, parameters=Exit, check=_check_exit),
    Operation(name="misbehave.hang", version=1, reads="name", run=_hang, parameters=Hang, check=_check_positive),
    Operation(name="misbehave.litter", version=1, reads="name", run=_litter, parameters=Litter, check=_check_positive),
    Operation(name="misbehave.leak", version=1, reads="name", run=_leak, parameters=Leak, check=_check_positive),
    Operation(
        name="misbehave.allocate", version=1, reads="name", run=_allocate, parameters=Allocate, check=_check_positive
    ),
    Operation(name="misbehave.hold", version=1, reads="name", run=_hold, parameters=Hold, check=_check_positive),
    Operation(
        name="misbehave.fragment", version=1, reads="name", run=_fragment, parameters=Fragment, check=_check_positive
    ),
    Operation(
        name="misbehave.ignore_terminate", version=1, reads="name", run=_ignore_terminate, parameters=Hang,
        check=_check_positive,
    ),
    Operation(name="misbehave.borrow", version=1, reads="name", run=_borrow, parameters=Borrow, check=_check_positive),
    Operation(name="misbehave.error", version=1, reads="name", run=_error, parameters=Raise),
)  # fmt: skip
