"""A headless Chromium, driven over its DevTools protocol: enough to look at a page and press its buttons.

Where there is none, tests that need it are skipped by name (`needs_chromium`). Every start has a fresh profile and
keeps to this machine: no updates, no look-ups.
"""

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.end_to_end.bed import wait_for

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(
    PROGRAM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-port=0",
)  # fmt: skip
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0


class Refused(Exception):
    """The browser did not do it: as a rule because the page it was asked about had just gone."""


class Page:
    """One page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []
        """What the page wrote to its console as an error, and exceptions nobody caught."""
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=ANSWER_SECONDS))
            if said.get("id") == self._number:
                if "error" in said:
                    raise Refused(said["error"]["message"])
                result: dict[str, Any] = said["result"]
                return result
            self._note(said)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Goes to a page, on a screen of that size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Returns what an expression is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, what: str) -> Any:
        """Waits until an expression is true in the page; while one is on its way there is nothing to look at yet."""
        looked = f"(() => {{ try {{ return {expression}; }} catch (error) {{ return false; }} }})()"

        def look() -> Any:
            try:
                return self.value(looked)
            except Refused:
                return None

        return wait_for(look, what)

    def picture(self) -> bytes:
        """Returns a picture of what is on the screen, PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def press(self, key: str, code: int) -> None:
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            text = "\r" if key == "Enter" and kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def _note(self, said: dict[str, Any]) -> None:
        parameters = said.get("params", {})
        if said.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif said.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(json.dumps(parameters["entry"]))


@contextlib.contextmanager
def browse(directory: str) -> Iterator[Page]:
    """Gives a page of a browser whose profile is below a directory."""
    assert PROGRAM is not None
    profile = tempfile.mkdtemp(prefix="chromium-", dir=directory)
    process = subprocess.Popen(
        [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "HOME": directory},
    )  # fmt: skip
    try:
        with connect(_address(process, profile), max_size=None, open_timeout=START_SECONDS) as socket:
            yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its renderers too
        process.wait()


def _address(process: "subprocess.Popen[bytes]", profile: str) -> str:
    """Waits until the browser listens and returns where its page does."""

    def port() -> int:
        if process.poll() is not None:
            pytest.skip(f"Chromium is installed but cannot run here: it ended with {process.returncode}")
        try:
            with open(os.path.join(profile, "DevToolsActivePort"), encoding="ascii") as file:
                return int(file.read().split()[0])
        except (FileNotFoundError, IndexError):
            return 0

    connection = http.client.HTTPConnection("127.0.0.1", wait_for(port, "Chromium listens", START_SECONDS), timeout=60)
    try:

        def page() -> str:
            connection.request("GET", "/json")
            found = json.loads(connection.getresponse().read())
            return next((str(each["webSocketDebuggerUrl"]) for each in found if each["type"] == "page"), "")

        return wait_for(page, "Chromium has a page", START_SECONDS)
    finally:
        connection.close()
