"""Flags: those that every verb has, and those made from the table of settings."""

import argparse
from collections.abc import Callable, Collection
from typing import NoReturn

import msgspec

from supervisor.config import Reading, read
from supervisor.settings import CLIENT_SETTINGS, SETTINGS

_SECTIONS = {
    "": "settings", "limits": "limits of an image", "watch": "memory watch", "reaper": "temp directory",
    "leases": "memory leases", "cleanup": "clean-ups",
}  # fmt: skip
"""Section of the settings: the title of its flags; one that is not named stands under its own name."""
_METAVARS = {
    "path": "DIR", "trace": "FILE", "address": "HOST:PORT", "hours": "HH:MM-HH:MM", "switch": "yes|no",
    "alert-command": "COMMAND", "alert-webhook": "URL", "recipe": "NAME", "kernel-limits": "auto|on|off",
}  # fmt: skip
"""What stands for a value in `--help`, by setting, else by kind; else the kind itself."""


class _Parser(argparse.ArgumentParser):
    """Tells a wrong use in one line, with the way out."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(2, f"{self.prog}: {message}; '{self.prog} --help' tells more\n")


class Verb(msgspec.Struct, frozen=True):
    """What a module offers for a verb."""

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    settings: frozenset[str] = frozenset({"state", "socket"})
    """Settings that become flags; with `json`, the verb reports."""
    json: bool = True
    examples: str = ""

    def parser(self, name: str, text: str) -> argparse.ArgumentParser:
        """Returns the parser of this verb."""
        parser = _Parser(
            prog=f"supervisor {name}",
            description=text[0].upper() + text[1:] + ".",
            epilog=self.examples and f"examples:\n{self.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.configure(parser)
        if self.json:
            parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
        parser.add_argument("--config", metavar="FILE", help="settings file [$XDG_CONFIG_HOME/.../supervisor.toml]")
        parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
        # A hundred settings in the usage would hide what the verb wants.
        own = parser.format_usage().removeprefix("usage: ").rstrip()
        parser.usage = f"{own} [--SETTING VALUE ...]".replace("%", "%%")
        add_settings(parser, self.settings)
        return parser


def at_least(least: int) -> Callable[[str], int]:
    """Returns what reads a whole number of at least `least` for argparse."""

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least or int(text) >= 2**31:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return int(text)

    return whole


def add_settings(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """Adds a flag for each named setting, grouped by table."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in SETTINGS:
        if setting.name not in names:
            continue
        group = groups.get(setting.section) or parser.add_argument_group(
            _SECTIONS.get(setting.section, setting.section)
        )
        groups[setting.section] = group
        text = setting.help.replace("%", "%%")
        group.add_argument(
            setting.flag,
            metavar=_METAVARS.get(setting.name) or _METAVARS.get(setting.kind) or setting.kind.upper(),
            dest=f"setting_{setting.name}",
            help=argparse.SUPPRESS if setting.hidden else text,
        )


def flags_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns the settings given as flags, raw, by name, with `config`."""
    given = {
        key.removeprefix("setting_"): value
        for key, value in vars(arguments).items()
        if key.startswith("setting_") and value is not None
    }
    if arguments.config is not None:
        given["config"] = arguments.config
    return given


def client_settings(arguments: argparse.Namespace) -> Reading:
    """Returns what a client needs to find its supervisor. Raises UsageError."""
    reading = read(flags_of(arguments), CLIENT_SETTINGS)
    mine = [fault for fault in reading.faults if "SUPERVISOR_" in fault or fault.startswith("flag ")]
    reading.faults = [*mine, *(f for f in reading.faults if f not in mine and _is_about_client(f))]
    reading.raise_faults()
    return reading


def _is_about_client(fault: str) -> bool:
    return any(f"key {name}:" in fault for name in CLIENT_SETTINGS)
