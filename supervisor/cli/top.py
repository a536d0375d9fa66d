"""`top`: the pool, live. Where standard output is no terminal, one picture as plain text and the end.

Asked, never pushed: `status` twice a second costs the supervisor microseconds, what needs a disk (temp, cache) is
asked for every few seconds. The keys do what verbs do.
"""

import argparse
import curses
import sys
import time

from protocol.client import Client
from protocol.errors import GalleryError
from protocol.messages import (
    AskCache,
    CacheReport,
    CleanupReport,
    Done,
    EmergencyCleanup,
    RecycleWorker,
    TempStats,
    TempUsage,
)
from supervisor.cli.find import ask, connect
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json
from supervisor.cli.status import status_row
from supervisor.cli.top_view import Line, Rates, Seen, Style, plain, screen
from supervisor.policy.sizes import human

EVERY_SECONDS = 0.5
SLOW_SECONDS = 5.0
"""Between two questions that make a disk work."""
NOTE_SECONDS = 4.0
DECISIONS = 60
_EXAMPLES = """  supervisor top
  supervisor top --every 2s
  supervisor top > now.txt"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", default=EVERY_SECONDS, type=_seconds, metavar="TIME", help="how often [0.5s]")


def _seconds(text: str) -> float:
    from supervisor.values import parse

    try:
        found = parse("duration", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(found, int | float) or found < 0.1:
        raise argparse.ArgumentTypeError(f"{text} is too short, at least 0.1s is needed")
    return float(found)


def _top(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        looker = Looker(client)
        if arguments.json:
            print_json(status_row(client.status()))
        elif not (sys.stdout.isatty() and sys.stdin.isatty()):
            print(plain(screen(looker.look(), looker.rates, lines=0)))
        else:
            curses.wrapper(lambda window: Screen(window, looker, client, arguments.every).live())
    return 0


class Looker:
    """Asks what is shown; what is slow to tell, seldom."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._slow_at = -SLOW_SECONDS
        self._temp: TempUsage | None = None
        self._cache: CacheReport | None = None
        self.rates = Rates()

    def look(self) -> Seen:
        """Returns the pool as it is now. Raises NoSupervisor when it is gone."""
        now = time.monotonic()
        if now - self._slow_at >= SLOW_SECONDS:
            self._slow_at = now
            self._temp = ask(self._client, TempStats(), TempUsage)
            try:
                self._cache = ask(self._client, AskCache(verb="stats"), CacheReport)
            except GalleryError:
                self._cache = None  # it is off
        status = self._client.status()
        self.rates.add(status, now)
        return Seen(
            status=status,
            batches=self._client.batches(),
            temp=self._temp,
            cache=self._cache.stats if self._cache is not None else None,
            decisions=self._client.decisions(limit=DECISIONS),
        )


class Screen:
    """The picture on a terminal, and its keys."""

    def __init__(self, window: "curses.window", looker: Looker, client: Client, every_seconds: float) -> None:
        self._window = window
        self._looker = looker
        self._client = client
        self._every = every_seconds
        self._note, self._note_until = "", 0.0
        self._wants_slot = False
        self._styles = _styles()

    def live(self) -> None:
        """Shows until `q` is pressed. Raises NoSupervisor when the supervisor is gone."""
        curses.curs_set(0)
        while True:
            self._draw(self._looker.look())
            self._window.timeout(int(self._every * 1000))
            try:
                key = self._window.getch()
            except KeyboardInterrupt:
                return
            if key == ord("q"):
                return
            if key not in (-1, curses.KEY_RESIZE):
                self._press(chr(key) if 0 <= key < 256 else "")

    def _draw(self, seen: Seen) -> None:
        height, width = self._window.getmaxyx()
        note = self._note if time.monotonic() < self._note_until else ""
        self._window.erase()
        for row, line in enumerate(screen(seen, self._looker.rates, lines=height, note=note)[:height]):
            self._put(row, line, width)
        self._window.refresh()

    def _put(self, row: int, line: Line, width: int) -> None:
        column = 0
        for text, style in line:
            # Writing into the last cell of the last line moves the cursor out: curses calls that an error.
            room = width - column - 1
            if room <= 0:
                return
            try:
                self._window.addnstr(row, column, text, room, self._styles.get(style, 0))
            except curses.error:
                return  # the terminal shrank since it was measured
            column += len(text)

    def _press(self, key: str) -> None:
        wanted, self._wants_slot = self._wants_slot, False
        try:
            if wanted and key.isdigit():
                self._say(ask(self._client, RecycleWorker(slot=int(key)), Done).message)
            elif key == "d":
                self._wants_slot = True
                self._say("which worker is to be replaced? press its number (0 to 9)")
            elif key == "p":
                paused = self._client.status().paused is not None
                self._say(self._client.resume() if paused else self._client.pause(reason="asked in top"))
            elif key == "c":
                done = ask(self._client, EmergencyCleanup(), CleanupReport).cleanup
                self._say(f"clean-up ({done.tier}): {human(max(0, done.before_bytes - done.after_bytes))} given back")
        except GalleryError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        self._note, self._note_until = text, time.monotonic() + NOTE_SECONDS


def _styles() -> dict[Style, int]:
    if not curses.has_colors():
        return {"bold": curses.A_BOLD, "dim": curses.A_DIM, "head": curses.A_REVERSE, "bad": curses.A_BOLD}
    curses.use_default_colors()
    for number, colour in enumerate((curses.COLOR_GREEN, curses.COLOR_YELLOW, curses.COLOR_RED), 1):
        curses.init_pair(number, colour, -1)
    return {
        "bold": curses.A_BOLD, "dim": curses.A_DIM, "head": curses.A_REVERSE,
        "good": curses.color_pair(1), "warn": curses.color_pair(2), "bad": curses.color_pair(3) | curses.A_BOLD,
    }  # fmt: skip


VERBS = {"top": Verb(_configure, _top, examples=_EXAMPLES)}
