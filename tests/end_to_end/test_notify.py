"""What a service manager hears: ready when the socket listens, signs of life from the loop, the end when it begins."""

import os
import signal
import socket

from tests.end_to_end.bed import Bed, wait_for

WATCHDOG_USEC = "200000"


def test_the_service_manager_hears_of_readiness_life_and_end(bed: Bed) -> None:
    address = os.path.join(bed.directory, "notify")
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)

        def hears(text: str, times: int = 1) -> bool:
            while True:
                try:
                    heard.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return sum(text in one for one in heard) >= times

        bed.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": WATCHDOG_USEC}
        command = bed.start("--workers", "1")
        wait_for(lambda: hears("READY=1"), "the supervisor says that it is ready")
        ready = next(one for one in heard if "READY=1" in one)
        assert f"MAINPID={command.pid}" in ready and "1 workers" in ready
        wait_for(lambda: hears("WATCHDOG=1", 3), "its loop gives signs of life")
        with bed.client() as client:
            worker = client.status().workers[0].pid
        with open(f"/proc/{worker}/environ", "rb") as file:
            assert b"NOTIFY_SOCKET" not in file.read(), "a worker could speak for the supervisor"
        command.signal(signal.SIGTERM)
        wait_for(lambda: hears("STOPPING=1"), "it says that it stops")
        assert command.wait().code == 0


def test_a_manager_that_does_not_listen_is_no_hindrance(bed: Bed) -> None:
    bed.environment |= {"NOTIFY_SOCKET": os.path.join(bed.directory, "nobody"), "WATCHDOG_USEC": WATCHDOG_USEC}
    command = bed.start("--workers", "1")
    command.signal(signal.SIGTERM)
    assert command.wait().code == 0
