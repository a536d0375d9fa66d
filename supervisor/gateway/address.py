"""The address a gateway listens at and the directories it may name: checked without any library, so that `start` can
say early what is wrong with them."""

import ipaddress
import os
import socket

from protocol.errors import MachineError, UsageError
from supervisor.values import show_address


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens there. Raises MachineError that names the address."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(128)
        except BaseException:
            opened.close()
            raise
    except OSError as error:
        where = show_address(host, port)
        raise MachineError(
            f"the gateway cannot listen at {where}: {error.strerror or error}; choose another --http"
        ) from error
    opened.set_inheritable(False)
    return opened


def is_loopback(host: str) -> bool:
    """Tells whether only this machine reaches the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_number(host: str) -> bool:
    """Tells whether a host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def read_roots(text: str | None) -> list[bytes]:
    """Returns the directories that the setting http_roots names, absolute. Raises UsageError for one that is none."""
    roots = [os.path.abspath(os.path.expanduser(path)) for path in filter(None, (text or "").split(os.pathsep))]
    for root in roots:
        if not os.path.isdir(root):
            raise UsageError(f"http_roots: {root} is no directory")
    return [os.fsencode(root) for root in roots]
