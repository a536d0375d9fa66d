"""`top` as it is used: on a terminal, by its keys; and as text where there is none."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

from tests.end_to_end.bed import ROOT, Bed, wait_for

COLUMNS, LINES = 120, 30


class Terminal:
    """A program on a terminal of its own: what it wrote, and keys for it."""

    def __init__(self, bed: Bed, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", *words],
            cwd=ROOT,
            env={**bed.environment, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._written = b""

    def shows(self, text: str) -> bool:
        """Tells whether it has written this so far, since the last key."""
        while select.select([self._ours], [], [], 0.05)[0]:
            try:
                self._written += os.read(self._ours, 65536)
            except OSError:  # it has ended
                break
        return text.encode() in self._written

    def press(self, keys: str) -> None:
        self._written = b""
        os.write(self._ours, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_top_is_live_and_its_keys_act(bed: Bed) -> None:
    bed.start("--workers", "2")
    with bed.client() as client:
        terminal = Terminal(bed, "top", "--every", "0.1s")
        try:
            wait_for(lambda: terminal.shows("IDLE") and terminal.shows("q quit"), "top shows its workers and keys")
            first = client.status().workers[0].pid
            terminal.press("d")
            wait_for(lambda: terminal.shows("press its number"), "top asks which worker")
            terminal.press("0")
            wait_for(lambda: client.status().workers[0].recycles == 1, "worker 0 is replaced")
            wait_for(lambda: client.status().workers[0].state == "IDLE", "its successor is ready")
            assert client.status().workers[0].pid != first
            terminal.press("p")
            wait_for(lambda: client.status().paused is not None, "work is paused")
            wait_for(lambda: terminal.shows("paused: "), "top says so")
            terminal.press("p")
            wait_for(lambda: client.status().paused is None, "work goes on")
            terminal.press("c")
            wait_for(lambda: terminal.shows("clean-up (moderate): "), "a clean-up is made")
            terminal.press("q")
            wait_for(lambda: terminal.shows("") and terminal.process.poll() is not None, "top has ended")
            assert terminal.process.returncode == 0
        finally:
            terminal.close()


def test_top_without_a_terminal_is_one_picture(bed: Bed) -> None:
    bed.start("--workers", "1")
    shown = bed.run("top")
    assert (shown.code, shown.err) == (0, "")
    assert "memory" in shown.out and "SLOT" in shown.out and "\x1b" not in shown.out
    nobody = bed.run("top", state=os.path.join(bed.directory, "elsewhere"))
    assert nobody.code == 3
