"""Alerts to a real command and a real webhook; slow, failing and absent ones."""

import http.server
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.mechanism.alerts import AlertTeller
from supervisor.policy.commands import Note, TellAlert
from tests.end_to_end.bed import wait_for


def alert(message: str = "the disk is full") -> TellAlert:
    note = Note(kind="alert", message=message, path="/photos/a.jpg", figures={"free_bytes": 3})
    return TellAlert(alert="disk_full", emergency=False, note=note, at=12.5)


def python(source: str) -> str:
    return shlex.join([sys.executable, "-c", source])


def expected(message: str = "the disk is full") -> dict[str, Any]:
    return {
        "at": 12.5,
        "kind": "alert",
        "message": message,
        "slot": None,
        "batch": None,
        "path": "/photos/a.jpg",
        "figures": {"free_bytes": 3},
        "alert": "disk_full",
        "emergency": False,
    }


def test_a_command_gets_each_alert_as_json_on_its_standard_input(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    source = f"import sys; open({str(heard)!r}, 'a').write(sys.stdin.read())"
    said: list[str] = []
    teller = AlertTeller(python(source), None, 30.0, said.append)
    for message in ("one", "two"):
        teller.tell(alert(message))
    wait_for(lambda: heard.exists() and heard.read_text().count("\n") == 2, "both are told")
    assert [json.loads(line) for line in heard.read_text().splitlines()] == [expected("one"), expected("two")]
    teller.close(30)
    assert said == []


def test_a_failing_command_is_told_once_until_it_works_again(tmp_path: Path) -> None:
    switch = tmp_path / "works"
    count = tmp_path / "count"
    source = (
        f"import os, sys; open({str(count)!r}, 'a').write('x')\n"
        f"if not os.path.exists({str(switch)!r}): sys.exit('no mail here')"
    )
    said: list[str] = []
    teller = AlertTeller(python(source), None, 30.0, said.append)

    def tell(times: int, total: int) -> None:
        for _ in range(times):
            teller.tell(alert())
        wait_for(lambda: count.exists() and len(count.read_text()) == total, "the command ran")

    tell(3, 3)
    wait_for(lambda: said, "it is told")
    switch.touch()
    tell(1, 4)
    os.unlink(switch)
    tell(1, 5)
    wait_for(lambda: len(said) == 2, "it is told again after it had worked")
    assert said == [f"the alert command {sys.executable} fails: exit code 1: no mail here"] * 2
    teller.close(30)


def test_a_command_that_hangs_is_killed_at_its_time_limit() -> None:
    said: list[str] = []
    teller = AlertTeller(python("import signal; signal.pause()"), None, 0.2, said.append)
    teller.tell(alert())
    wait_for(lambda: said, "it is given up")
    assert said == [f"the alert command {sys.executable} fails: it did not end within 0.2 s and was killed"]
    teller.close(30)


def test_a_command_that_is_not_there_is_told() -> None:
    said: list[str] = []
    teller = AlertTeller("/nowhere/mail", None, 30.0, said.append)
    teller.tell(alert())
    wait_for(lambda: said, "it is told")
    assert said[0].startswith("the alert command /nowhere/mail fails: FileNotFoundError")
    teller.close(30)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any]]]:
    """A web server's address, and what it was sent: (path, type, body)."""
    sent: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(204 if self.path.startswith("/good") else 500)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Says nothing on standard error."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_is_sent_json_and_its_refusal_is_told(hook: tuple[str, list[Any]]) -> None:
    address, sent = hook
    said: list[str] = []
    for path in ("/good?key=1", "/bad"):
        teller = AlertTeller(None, address + path, 30.0, said.append)
        teller.tell(alert())
        teller.close(30)
    assert sent == [("/good?key=1", "application/json", expected()), ("/bad", "application/json", expected())]
    assert said == ["the alert webhook fails: it answered 500 Internal Server Error"]


def test_without_a_command_or_a_webhook_nothing_runs() -> None:
    before = threading.active_count()
    teller = AlertTeller(None, None, 1.0, lambda sentence: None)
    teller.tell(alert())
    assert threading.active_count() == before
    teller.close(0)
