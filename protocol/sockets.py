"""Sockets: opened here alone, with every option said, so that no other module needs ZeroMQ's names.

What ZeroMQ leaves to chance by default is decided here:

* queues are bounded (high-water marks) and a full one is a fact the sender is told (`Sent.FULL`), except
  for publications, which a slow subscriber simply misses;
* a router tells when a peer is unknown or gone (`Sent.GONE`) instead of dropping its message;
* closing waits at most a named time for what is unsent, and never for ever;
* a frame beyond MAX_WIRE_BYTES cuts its sender off without a word (ZeroMQ cannot answer it); the codec
  refuses from MAX_FRAME_BYTES on, a quarter of it, with a message that names the fault.

Endpoints are `ipc://` paths: who may talk is decided by the rights of the directory. Sockets are given
and taken as `Socket`; frames are `bytes`. A socket belongs to the thread that made it.
"""

import enum
import os
import socket as unix
import stat
from collections.abc import Sequence

import zmq
from zmq import POLLERR as POLLERR
from zmq import POLLIN as POLLIN
from zmq import POLLPRI as POLLPRI
from zmq import Poller as Poller

from protocol.errors import MachineError, UsageError
from protocol.messages import MAX_FRAME_BYTES

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

MAX_WIRE_BYTES = 4 * MAX_FRAME_BYTES
"""Above it the connection is dropped by ZeroMQ; up to it the codec answers what is wrong."""

MAX_SOCKETS = 64
"""A process here opens at most a handful; a leak is an error long before descriptors run out."""

MAX_IPC_PATH_BYTES = 107
"""sun_path of a Unix socket holds 108 bytes with its NUL (unix(7))."""

HIGH_WATER_MESSAGES = 1_000
"""Messages queued a peer, each way: a worker has at most a few in flight, a client a window of 4."""

PUBLISH_HIGH_WATER_MESSAGES = 10_000
"""Decisions a slow subscriber may lag behind before it misses some; about 5 MB."""

HANDSHAKE_MILLISECONDS = 5_000
"""A connection that does not shake hands in that time is dropped."""

CLIENT_LINGER_MILLISECONDS = 0
"""A client has waited for its answers: nothing unsent is worth waiting for."""

WORKER_LINGER_MILLISECONDS = 2_000
"""A worker's last report must get out; if the supervisor is gone nobody wants it."""

SERVER_LINGER_MILLISECONDS = 500
"""The last answers ('stopping') get out; a client that does not read cannot hold the supervisor up."""


class Sent(enum.Enum):
    """What became of a message given to `send`."""

    SENT = "sent"
    FULL = "full"
    """The peer's queue is at its high-water mark (or nobody is connected yet); nothing was kept."""
    GONE = "gone"
    """A router knows no such peer."""


class SocketFailed(MachineError):
    """A socket cannot be opened or used; the message names the endpoint."""

    code = "socket"


def new_context() -> Context:
    """Returns a context with one I/O thread. One a process, made after any fork."""
    context: Context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
    return context


def destroy_context(context: Context) -> None:
    """Closes every socket of a context, dropping what is unsent, then the context: never waits."""
    context.destroy(linger=0)


def worker_socket(context: Context, endpoint: str, identity: bytes) -> Socket:
    """Returns a worker's DEALER, connected to the backend under its identity."""
    socket = _plain(context, zmq.DEALER, WORKER_LINGER_MILLISECONDS)
    socket.set(zmq.ROUTING_ID, identity)
    socket.set(zmq.IMMEDIATE, 0)  # what is said before the connection stands is queued
    return _connected(socket, endpoint)


def client_socket(context: Context, endpoint: str) -> Socket:
    """Returns a client's DEALER, connected to the frontend."""
    socket = _plain(context, zmq.DEALER, CLIENT_LINGER_MILLISECONDS)
    socket.set(zmq.IMMEDIATE, 1)  # a request is queued for a supervisor that is there, not for the next one
    return _connected(socket, endpoint)


def router_socket(
    context: Context, endpoint: str, *, mandatory: bool = True, max_frame_bytes: int = MAX_WIRE_BYTES
) -> Socket:
    """Returns a ROUTER bound to an ipc endpoint; a stale socket file there is removed.

    The caller owns the place (it holds the lock of the state directory): whoever bound it before is dead.
    Raises SocketFailed, or UsageError where the path is too long for a Unix socket or is not UTF-8.
    """
    socket = _plain(context, zmq.ROUTER, SERVER_LINGER_MILLISECONDS)
    socket.set(zmq.ROUTER_MANDATORY, int(mandatory))
    socket.set(zmq.ROUTER_HANDOVER, 0)  # an identity belongs to who had it first
    socket.set(zmq.MAXMSGSIZE, max_frame_bytes)
    return _bound(socket, endpoint)


def publisher(context: Context, endpoint: str) -> Socket:
    """Returns an XPUB bound to an ipc endpoint. Its messages are two frames: topic and JSON."""
    socket = _plain(context, zmq.XPUB, 0)
    socket.set(zmq.SNDHWM, PUBLISH_HIGH_WATER_MESSAGES)
    socket.set(zmq.XPUB_VERBOSE, 0)
    socket.set(zmq.XPUB_NODROP, 0)  # a slow subscriber misses messages rather than hold the loop up
    socket.set(zmq.MAXMSGSIZE, 4096)  # what comes in are subscriptions
    return _bound(socket, endpoint)


def subscriber(context: Context, endpoint: str, topics: Sequence[str] = ("",)) -> Socket:
    """Returns a SUB connected to a publisher; a topic is a prefix (`worker.`, `batch.b1`, `` for all)."""
    socket = _plain(context, zmq.SUB, 0)
    socket.set(zmq.RCVHWM, PUBLISH_HIGH_WATER_MESSAGES)
    for topic in topics:
        socket.set(zmq.SUBSCRIBE, topic.encode())
    return _connected(socket, endpoint)


def send(socket: Socket, frames: Sequence[bytes]) -> Sent:
    """Sends a message without waiting. Raises SocketFailed when the socket itself is unusable."""
    try:
        socket.send_multipart(frames, zmq.DONTWAIT)
    except zmq.Again:
        return Sent.FULL
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return Sent.GONE
        raise SocketFailed(f"cannot send: {error}") from error
    return Sent.SENT


def receive(socket: Socket) -> list[bytes] | None:
    """Returns the frames of the next message, None when there is none. Raises SocketFailed."""
    try:
        return socket.recv_multipart(zmq.DONTWAIT)
    except zmq.Again:
        return None
    except zmq.ZMQError as error:
        raise SocketFailed(f"cannot receive: {error}") from error


def wait_readable(socket: Socket, timeout_seconds: float | None) -> bool:
    """Waits until a message can be received; None waits for ever, 0 only looks."""
    return _wait(socket, zmq.POLLIN, timeout_seconds)


def wait_writable(socket: Socket, timeout_seconds: float | None) -> bool:
    """Waits until a message can be sent (for a client: until the supervisor is connected)."""
    return _wait(socket, zmq.POLLOUT, timeout_seconds)


def ipc_path(endpoint: str) -> str | None:
    """Returns the file of an `ipc://` endpoint, None for another transport."""
    return endpoint[len("ipc://") :] if endpoint.startswith("ipc://") else None


def is_listening(endpoint: str) -> bool:
    """Tells whether somebody listens at an ipc endpoint, at once; any other endpoint is assumed to be there."""
    path = ipc_path(endpoint)
    if path is None:
        return True
    with unix.socket(unix.AF_UNIX, unix.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fsencode(path))
        except BlockingIOError:  # its queue of connections is full: somebody is there
            return True
        except (OSError, ValueError):
            return False
    return True


def _wait(socket: Socket, flags: int, timeout_seconds: float | None) -> bool:
    milliseconds = None if timeout_seconds is None else max(0, round(timeout_seconds * 1000 + 0.499))
    try:
        return bool(socket.poll(milliseconds, flags))
    except zmq.ZMQError as error:
        raise SocketFailed(f"cannot wait on a socket: {error}") from error


def _plain(context: Context, kind: int, linger_milliseconds: int) -> Socket:
    try:
        socket = context.socket(kind)
    except zmq.ZMQError as error:
        raise SocketFailed(f"cannot open a socket: {error}") from error
    socket.set(zmq.LINGER, linger_milliseconds)
    socket.set(zmq.SNDHWM, HIGH_WATER_MESSAGES)
    socket.set(zmq.RCVHWM, HIGH_WATER_MESSAGES)
    socket.set(zmq.MAXMSGSIZE, MAX_WIRE_BYTES)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MILLISECONDS)
    socket.set(zmq.RECONNECT_IVL, 50)
    socket.set(zmq.RECONNECT_IVL_MAX, 1_000)
    return socket


def _connected(socket: Socket, endpoint: str) -> Socket:
    _check_name(socket, endpoint)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise SocketFailed(f"cannot connect to {endpoint}: {error}") from error
    return socket


def _bound(socket: Socket, endpoint: str) -> Socket:
    _check_name(socket, endpoint)
    path = ipc_path(endpoint)
    try:
        if path is not None:
            _remove_stale(path)
        socket.bind(endpoint)
    except (zmq.ZMQError, OSError) as error:
        socket.close()
        raise SocketFailed(f"cannot listen at {endpoint}: {error}") from error
    return socket


def _check_name(socket: Socket, endpoint: str) -> None:
    path = ipc_path(endpoint)
    if path is None:
        return
    raw = os.fsencode(path)
    if len(raw) > MAX_IPC_PATH_BYTES:
        socket.close()
        raise UsageError(
            f"the socket path {path} has {len(raw)} bytes, a Unix socket takes {MAX_IPC_PATH_BYTES}: "
            "name a shorter directory for it with --socket (or SUPERVISOR_SOCKET)"
        )
    try:
        raw.decode("utf-8")  # ZeroMQ takes the name as UTF-8
    except UnicodeDecodeError as error:
        socket.close()
        raise UsageError(f"the socket path {raw!r} is not UTF-8: name another directory with --socket") from error


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketFailed(f"{path} is in the way: it is no socket; move it elsewhere")
    os.unlink(path)
