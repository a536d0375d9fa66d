"""`start`: a supervisor in the foreground, and the one screen that tells what it chose and why."""

import argparse
import os
import stat

from protocol.errors import StateDirectoryUnusable, UsageError
from supervisor import __version__
from supervisor.cli.options import Verb, flags_of
from supervisor.cli.output import path_fields, print_json, say
from supervisor.config import Config, Reading, StartSummary, read
from supervisor.policy.sizes import human
from supervisor.settings import SETTINGS
from supervisor.values import show_address, show_duration

START_SETTINGS = frozenset(setting.name for setting in SETTINGS) - {"recipe"}
GATEWAY_NEEDS = ("starlette", "uvicorn", "python_multipart")
_EXAMPLES = """  supervisor start --workers 4 --memory 2G
  SUPERVISOR_MEMORY=512M supervisor start --state /var/lib/gallery-supervisor"""


def _configure(parser: argparse.ArgumentParser) -> None:
    """All it takes are settings."""


def _run(arguments: argparse.Namespace) -> int:
    reading = read(flags_of(arguments), START_SETTINGS)
    from supervisor.mechanism.memory import usable_cores

    config = reading.config(usable_cores())
    if config.http is not None:
        _check_gateway(*config.http, config.http_roots)
    elsewhere = not config.socket_directory.startswith(config.state_directory + "/")
    if elsewhere:  # the state directory is private as a whole
        _make_private(config.socket_directory)

    def announce(summary: StartSummary) -> None:
        for line in describe(config, reading, summary):
            say(line)
        if arguments.json:
            print_json(_row(config, summary))

    from supervisor.loop import run  # everything the loop needs, only here

    try:
        return run(config, announce, flags_of(arguments))
    finally:
        if elsewhere:
            _remove_if_empty(config.socket_directory)


def _check_gateway(host: str, port: int, roots: str | None) -> None:
    """Raises UsageError where the gateway's libraries or directories are not there, MachineError where its address is
    taken: it would be started again and again and say so in the log."""
    from importlib.util import find_spec

    from supervisor.gateway.address import listen, read_roots

    missing = [name for name in GATEWAY_NEEDS if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--http needs {', '.join(missing)}, which the extra 'web' installs: pip install 'gallery-supervisor[web]'"
        )
    read_roots(roots)
    listen(host, port).close()


def describe(config: Config, reading: Reading, summary: StartSummary) -> list[str]:
    """Returns the lines of the start screen."""
    chosen = "" if reading.sources["workers"] == "default" else f" ({reading.sources['workers']})"
    lines = [
        f"supervisor {__version__}, pid {summary.pid}",
        f"  budget   {human(summary.budget_bytes)} ({summary.budget_source})",
        f"  workers  {config.workers}{chosen or ' (the cores this process may use)'}, nice {config.nice}"
        + (", idle I/O" if config.idle_io else ""),
        f"  clients  {config.frontend_endpoint}",
        f"  events   {config.events_endpoint}",
        f"  state    {config.state_directory}",
        f"  limits   {_limits(config)}",
        f"  sandbox  {summary.sandbox} ({config.sandbox})",
        f"  settings {reading.file or 'no supervisor.toml'}",
    ]
    if config.between is not None:
        lines.append(f"  hours    {config.between}: work is begun only then")
    if config.http is not None:
        lines.append(f"  http     {_http(config)}")
    return lines + [f"  note     {note}" for note in summary.notes]


def _http(config: Config) -> str:
    from supervisor.gateway.address import is_loopback

    assert config.http is not None
    url = f"http://{show_address(*config.http)}/"
    if config.http_token is not None:
        return f"{url}, with the token in the settings"
    return url if is_loopback(config.http[0]) else f"{url}, with the token in {config.state_directory}/http/token"


def _limits(config: Config) -> str:
    limits = config.limits
    return (
        f"{show_duration(config.item_timeout_seconds)} an image, {limits.pixels_whole / 1e6:,.0f} megapixels "
        f"({limits.pixels_streamed / 1e6:,.0f} where they stream), files of {human(limits.file_bytes)}, "
        f"{config.queue_max_items:,} images in the queue"
    )


def _row(config: Config, summary: StartSummary) -> dict[str, object]:
    from protocol.paths import to_token

    return {
        "version": __version__,
        "pid": summary.pid,
        "budget_bytes": summary.budget_bytes,
        "budget_source": summary.budget_source,
        "workers": config.workers,
        "endpoint": config.frontend_endpoint,
        "events_endpoint": config.events_endpoint,
        **path_fields(to_token(config.state_directory), "state_directory"),
        "sandbox": summary.sandbox,
        "notes": summary.notes,
    }


def _make_private(directory: str) -> None:
    """Makes the directory of the sockets for this user alone: who can open a socket there can submit work.

    Raises StateDirectoryUnusable where somebody else owns it or may write into it (it may be in a shared /tmp).
    """
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise StateDirectoryUnusable(f"the socket directory {directory} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise StateDirectoryUnusable(
            f"the socket directory {directory} is not ours alone (owner {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):o}); name another one with --socket"
        )


def _remove_if_empty(directory: str) -> None:
    try:
        os.rmdir(directory)
    except OSError:
        pass  # it is a directory of the user's, with other things in it


VERBS = {"start": Verb(_configure, _run, START_SETTINGS, examples=_EXAMPLES)}
