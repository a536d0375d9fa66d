"""Tells the service manager how we are, by systemd's protocol: lines in a datagram to the socket it named.

READY once the frontend listens; WATCHDOG from the loop itself, so that a loop that is stuck is not answered for by a
thread that is not; STOPPING when the end begins. Without NOTIFY_SOCKET nothing is sent. Source: sd_notify(3).
"""

import os
import socket
from collections.abc import MutableMapping

SHARE_OF_WATCHDOG = 0.5
"""sd_watchdog_enabled(3) asks for a sign of life every half of the time."""


class Notifier:
    """One datagram socket, or nothing. Sending never blocks and never raises: a manager that does not listen is no
    reason to stop working."""

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Takes the variables out of the environment: what they name is not for our children."""
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", "")
        limit, owner = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        mine = owner in ("", str(os.getpid()))
        self._every = int(limit) / 1e6 * SHARE_OF_WATCHDOG if limit.isdigit() and mine else None
        self._beaten_at: float | None = None

    def ready(self, status: str) -> None:
        """Says that work is taken, with a line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={_line(status)}\nMAINPID={os.getpid()}")

    def beat(self, now: float) -> None:
        """Says that the loop turns, where it is time to; `now` is the loop's clock."""
        if self._every is None or (self._beaten_at is not None and now - self._beaten_at < self._every):
            return
        self._beaten_at = now
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """Says that the end has begun."""
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def close(self) -> None:
        """Lets go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            pass  # gone, or drowned: the next one may get through


def _line(text: str) -> str:
    return " ".join(text.split())
