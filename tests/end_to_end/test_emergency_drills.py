"""Real emergencies: parts give way and come back, a clean-up action that hangs, alerts that reach the world outside."""

import http.server
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.policy.sizes import MB
from tests.end_to_end.bed import Bed, lives, settled, wait_for
from tests.end_to_end.test_parts import add_part

BUDGET_BYTES = 400 * MB
HOARDER = """
import os, signal
heard = {signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
print("ready", flush=True)
while True:
    held = None
    while signal.sigwait(heard) != signal.SIGUSR1:
        pass
    with open(os.environ["SUPERVISOR_STATE"] + "/hoard") as file:
        held = b"\\xa5" * int(file.read())
    while signal.sigwait(heard) != signal.SIGUSR2:
        pass
"""
METER = """
import signal
print("measuring", flush=True)
signal.pause()
"""
STUBBORN = '''
"""An operation whose clean-up action computes for ever in C, where no alarm reaches it."""

from collections import deque
from itertools import repeat
import time

from workers import pressure
from workers.operations import Operation, Parameters, Work

subscribed = []


def never_back(tier: str) -> None:
    deque(repeat(None), maxlen=0)


def run(work: Work, parameters: Parameters) -> None:
    if not subscribed:
        subscribed.append(pressure.subscribe(never_back, name="never back", owner="stubborn", tier="aggressive"))
    time.sleep(0.01)


STUBBORN = Operation(name="stubborn", version=1, reads="name", run=run, parameters=Parameters)
'''


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server of our own: its address, and the JSON that it was sent."""
    heard: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/alerts", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def teller(bed: Bed) -> tuple[str, Path]:
    """Returns an alert command that appends what it gets to a file, and the file."""
    heard = Path(bed.directory, "alerts")
    source = f"import sys; open({str(heard)!r}, 'a').write(sys.stdin.read())"
    return shlex.join([sys.executable, "-c", source]), heard


def lines(heard: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in heard.read_text().splitlines()] if heard.exists() else []


def install(bed: Bed, name: str, source: str) -> None:
    """Installs a distribution with one operation beside us."""
    packages = os.path.join(bed.directory, "packages")
    info = os.path.join(packages, f"{name}-1.0.dist-info")
    os.makedirs(info)
    Path(packages, f"{name}_operation.py").write_text(source)
    Path(info, "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    entry = f"[gallery_supervisor.operations]\n{name} = {name}_operation:{name.upper()}\n"
    Path(info, "entry_points.txt").write_text(entry)
    bed.environment["PYTHONPATH"] = os.pathsep.join([bed.environment["PYTHONPATH"], packages])


def part(bed: Bed, name: str) -> dict[str, Any]:
    """A part as `emergency status` tells it."""
    parts = bed.run("emergency", "status", "--json").last["parts"]
    return next(row for row in parts if row["name"] == name)


def kinds(bed: Bed) -> list[str]:
    return [row["kind"] for row in bed.run("events", "--json", "--limit", "1000").rows]


def test_in_an_emergency_what_is_not_essential_stops_and_comes_back_and_alerts_are_told(
    bed: Bed, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, posted = webhook
    command, told = teller(bed)
    add_part(bed, "hoarder", HOARDER, essential=True, memory="4G")
    add_part(bed, "meter", METER)
    supervisor = bed.start(
        memory=str(BUDGET_BYTES), alert_command=command, alert_webhook=url, protection="no", workers="1"
    )
    wait_for(lambda: "hoarder: ready" in supervisor.said() and "meter: measuring" in supervisor.said(), "both run")
    hoarder, meter = part(bed, "hoarder")["pid"], part(bed, "meter")["pid"]
    client = bed.client()
    wait_for(lambda: all(worker.soft_bytes for worker in client.status().workers), "all workers are warm")
    with open(os.path.join(bed.state, "hoard"), "w", encoding="ascii") as file:
        file.write(str(int(BUDGET_BYTES * 0.96)))
    os.kill(hoarder, signal.SIGUSR1)
    wait_for(lambda: part(bed, "meter")["state"] == "held", "what is not essential is stopped")
    assert not lives(meter)
    assert part(bed, "hoarder")["pid"] == hoarder
    text = bed.run("emergency", "status").out
    assert [line for line in text.splitlines() if "meter" in line and "held back: " in line], text
    wait_for(lambda: [row for row in lines(told) if row["alert"] == "memory_emergency"], "the command has it")
    wait_for(lambda: [row for row in posted if row["alert"] == "memory_emergency"], "the webhook has it")
    [alert] = [row for row in posted if row["alert"] == "memory_emergency"]
    assert alert["emergency"] is True
    assert alert["message"].startswith("alert, memory emergency: memory level ")
    assert alert["figures"]["budget_bytes"] == BUDGET_BYTES
    assert alert in lines(told), "both are told the same"
    os.kill(hoarder, signal.SIGUSR2)
    wait_for(lambda: part(bed, "meter")["state"] == "running", "it is started again", 60)
    assert part(bed, "meter")["pid"] != meter
    assert part(bed, "hoarder")["pid"] == hoarder
    happened = kinds(bed)
    assert happened.index("part_held") < happened.index("part_released")
    batch = bed.submit(client, bed.fill(4))
    wait_for(lambda: settled(client.progress(batch)) == 4, "work goes on")


def test_a_clean_up_action_that_never_comes_back_ends_its_worker_and_charges_no_image(bed: Bed) -> None:
    install(bed, "stubborn", STUBBORN)
    bed.write_config(stubborn=[{"operation": "stubborn"}])
    bed.start(item_timeout="2s")
    client = bed.client()
    names = bed.fill(600)
    batch = bed.submit(client, names, recipe="stubborn", out=None)
    wait_for(lambda: all(worker.items_done >= 10 for worker in client.status().workers), "both are at work")
    before = {worker.pid for worker in client.status().workers}
    report = bed.run("emergency", "cleanup", "aggressive", "--json").last
    named = [action for action in report["actions"] if action["error"] and action["owner"].startswith("worker ")]
    assert {action["owner"] for action in named} == {"worker 0", "worker 1"}, report
    wait_for(lambda: settled(client.progress(batch)) == len(names), "the batch goes on", 60)
    rows = bed.results(client, batch)
    assert {row["state"] for row in rows.values()} == {"done"}
    assert {row["attempts"] for row in rows.values()} == {1}, "no image was in progress: none is charged"
    status = client.status()
    assert not before & {worker.pid for worker in status.workers}
    assert {worker.last_death.cause for worker in status.workers if worker.last_death is not None} == {"timeout"}
    told = [row["message"] for row in bed.run("events", "--json", "--limit", "1000").rows if row["kind"] == "timeout"]
    assert len(told) >= 2
    assert all("clean-up" in message for message in told), told


def test_a_leak_is_alerted_with_the_operation_to_blame(bed: Bed) -> None:
    command, told = teller(bed)
    bed.write_config(
        leaking=[{"operation": "thumbnail", "sizes": [16]}, {"operation": "misbehave.leak", "bytes": MB // 4}]
    )
    bed.start(memory="1G", alert_command=command)
    client = bed.client()
    batch = bed.submit(client, bed.fill(150), recipe="leaking")
    wait_for(lambda: settled(client.progress(batch)) == 150, "all is done")
    wait_for(lambda: [row for row in lines(told) if row["alert"] == "leak"], "the leak is told")
    [alert] = [row for row in lines(told) if row["alert"] == "leak"]
    assert alert["figures"]["subject"] == "misbehave.leak"
    assert alert["figures"]["recipe"] == "leaking"
    assert alert["message"].startswith("alert, leak: misbehave.leak leaks: ")
    assert alert["emergency"] is False
