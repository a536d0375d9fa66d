"""The kernel wakes us when tasks wait for memory, instead of being asked again and again.

A line written to the file of pressure stall information (`some 200000 2000000`: so many microseconds of stall within
such a window) makes its descriptor a trigger: poll tells POLLPRI once a window for as long as it is so, POLLERR when
the control group is gone. Without privileges the window must be a whole number of two seconds, the kernel's own pace;
so it is two seconds for everybody. The line ends with its NUL, or the kernel takes the last digit for the end.
Source: Documentation/accounting/psi.rst, kernel/sched/psi.c.

Not everybody can have one (no such file, one that may not be written, an old or a careful kernel): then the counters
of `pressure_stall` are all there is, read at every look.
"""

import contextlib
import os

WINDOW_SECONDS = 2.0
_MICROSECONDS = 1_000_000


class StallTrigger:
    """One trigger, or the reason why there is none. `path` is the file that the counters are read from too, so that
    both speak of the same tasks; None where there is none."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._share: float | None = None
        self.missing: str | None = "not asked for"
        """Why there is none; None: there is one."""

    def arm(self, share: float) -> None:
        """Asks to be woken when some task waited for more than `share` (0.0 to 1.0) of the window; the same again
        changes nothing. Raises nothing: see `missing`."""
        if share == self._share:
            return
        self.close()
        self._share = share
        if self._path is None:
            self.missing = "the kernel has no such file"
            return
        try:
            self._descriptor = _armed(self._path, share)
        except OSError as error:
            self.missing = f"{self._path}: {error.strerror}"
        else:
            self.missing = None

    def fileno(self) -> int | None:
        """Returns what to poll for POLLPRI alone (it always counts as readable); None: nothing."""
        return self._descriptor

    def lost(self) -> None:
        """Gives it up for good: poll told an error, and would at once and for ever."""
        self.close()
        self.missing = f"{self._path}: its control group is gone"

    def close(self) -> None:
        """Lets go of it; harmless when repeated."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def why_missing(path: str | None, share: float) -> str | None:
    """Returns why no trigger can be had there, None where one can."""
    with contextlib.closing(StallTrigger(path)) as trigger:
        trigger.arm(share)
        return trigger.missing


def _armed(path: str, share: float) -> int:
    """Returns the descriptor of a new trigger. Raises OSError."""
    window = int(WINDOW_SECONDS * _MICROSECONDS)
    threshold = min(window, max(1, int(share * window)))
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"some %d %d\0" % (threshold, window))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
