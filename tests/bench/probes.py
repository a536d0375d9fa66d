"""Bare probes: the least that a thing can cost here and now, without a line of ours in the way."""

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable

from protocol import sockets
from tests.bench.rows import p95


def fork() -> float:
    """Returns the seconds of a fork whose child leaves at once, its end included."""
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return time.perf_counter() - began


def kill() -> float:
    """Returns the seconds from SIGKILL to a child to its end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"\0")
        while True:
            signal.pause()
    os.read(reader, 1)
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    passed = time.perf_counter() - began
    os.close(reader)
    os.close(writer)
    return passed


def fsync(directory: str) -> float:
    """Returns the seconds of writing 4 KB and bringing them to the disk of a directory."""
    with tempfile.TemporaryFile(dir=directory) as file:
        began = time.perf_counter()
        os.write(file.fileno(), bytes(4096))
        os.fsync(file.fileno())
        return time.perf_counter() - began


def round_trip(directory: str, count: int = 200) -> float:
    """Returns the seconds of one small message there and back over an ipc socket, the mean of `count`."""
    context = sockets.new_context()
    try:
        endpoint = f"ipc://{directory}/probe"
        router = sockets.router_socket(context, endpoint)
        dealer = sockets.worker_socket(context, endpoint, b"probe")
        began = 0.0
        for number in range(count + 1):
            if number == 1:  # the first one waits for the connection
                began = time.perf_counter()
            sockets.send(dealer, [b"ping"])
            sockets.wait_readable(router, None)
            sockets.send(router, sockets.receive(router) or [])
            sockets.wait_readable(dealer, None)
            sockets.receive(dealer)
        return (time.perf_counter() - began) / count
    finally:
        sockets.destroy_context(context)
        os.unlink(os.path.join(directory, "probe"))


def told(name: str, probe: Callable[[], float], times: int = 20) -> str:
    """Returns a sentence with the median and 95th percentile of a probe, in milliseconds."""
    values = [probe() * 1000 for _ in range(times)]
    return f"bare {name} {statistics.median(values):.3g} ms, p95 {p95(values):.3g} ms"
