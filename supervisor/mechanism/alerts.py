"""Tells alerts to the world outside: a command that gets JSON on its standard input, a webhook that is sent it.

Both may be slow, dead, or never answer, so they run in a thread of their own that exists while there is something to
tell, each with a time limit. What waits is bounded. A failing one is told in the log once, until it works again.
"""

import http.client
import os
import queue
import shlex
import signal
import threading
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import msgspec

from protocol.messages import Decision
from protocol.paths import describe
from supervisor.policy.commands import TellAlert

WAITING_MAX = 100
LINGER_SECONDS = 5.0
"""The thread ends when nothing came for so long."""
SAID_CHARACTERS = 300


class AlertTeller:
    """Takes alerts from the loop and never holds it up."""

    def __init__(
        self, command: str | None, webhook: str | None, timeout_seconds: float, complain: Callable[[str], None]
    ) -> None:
        """`command` is split as a shell would; `complain` takes sentences, from another thread."""
        self._argv = shlex.split(command) if command else []
        self._webhook = webhook
        self._timeout_seconds = timeout_seconds
        self._complain = complain
        self._waiting: queue.Queue[bytes | None] = queue.Queue(WAITING_MAX)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._failing: set[str] = set()

    def tell(self, alert: TellAlert) -> None:
        """Queues an alert; where too many wait already it is dropped, and the log has it all the same."""
        if not self._argv and self._webhook is None:
            return
        with self._lock:
            try:
                self._waiting.put_nowait(encode(alert))
            except queue.Full:
                self._failed("queue", f"{WAITING_MAX} alerts wait to be told already: further ones are dropped")
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
                self._thread.start()

    def close(self, patience_seconds: float) -> None:
        """Tells what waits, as far as the time allows."""
        with self._lock:
            thread = self._thread
            if thread is not None and not self._waiting.full():
                self._waiting.put_nowait(None)
        if thread is not None:
            thread.join(patience_seconds)

    def _run(self) -> None:
        while True:
            try:
                body = self._waiting.get(timeout=LINGER_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._thread = None
                        return
                continue
            if body is None:
                return
            if self._argv:
                self._try("command", f"the alert command {self._argv[0]}", partial(self._command, body))
            if self._webhook is not None:
                self._try("webhook", "the alert webhook", partial(self._post, body))

    def _try(self, key: str, name: str, act: Callable[[], str | None]) -> None:
        try:
            fault = act()
        except Exception as error:  # whatever the world outside does, the next alert is told
            fault = f"{type(error).__name__}: {error}"
        if fault is None:
            self._failing.discard(key)
        else:
            self._failed(key, f"{name} fails: {fault}")

    def _failed(self, key: str, sentence: str) -> None:
        if key not in self._failing:
            self._failing.add(key)
            self._complain(sentence)

    def _command(self, body: bytes) -> str | None:
        import subprocess  # for those alone who have a command

        process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        try:
            _, said = process.communicate(body, timeout=self._timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"it did not end within {self._timeout_seconds:g} s and was killed"
        if process.returncode:
            return f"exit code {process.returncode}: {said[:SAID_CHARACTERS].decode('utf-8', 'replace').strip()}"
        return None

    def _post(self, body: bytes) -> str | None:
        url = urlsplit(self._webhook or "")
        make = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = make(url.hostname or "", url.port, timeout=self._timeout_seconds)
        try:
            path = url.path or "/"
            target = f"{path}?{url.query}" if url.query else path
            connection.request("POST", target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return None if answer.status < 300 else f"it answered {answer.status} {answer.reason}"
        finally:
            connection.close()


def encode(alert: TellAlert) -> bytes:
    """Returns an alert as the command and the webhook get it: a decision, with `alert` and `emergency`."""
    note = alert.note
    decision = Decision(
        number=0,
        at=alert.at,
        kind=note.kind,
        message=note.message,
        slot=note.slot,
        batch=note.batch,
        path=describe(note.path)["path"] if note.path is not None else None,
        figures=note.figures,
    )
    row = msgspec.to_builtins(decision) | {"alert": alert.alert, "emergency": alert.emergency}
    row.pop("number")
    return msgspec.json.encode(row) + b"\n"
