"""`temp stats|reap`: what the workers' temp files take, and deleting what nobody needs any more.

Where no supervisor runs both act on the temp directory that the settings name, by the same rules.
"""

import argparse
import os
from typing import Any

import msgspec

from protocol.client import Client
from protocol.errors import NoSupervisor
from protocol.messages import TempReap, TempReport, TempStats, TempUsage
from protocol.sockets import is_listening
from supervisor.cli.find import ask, endpoint_of
from supervisor.cli.options import Verb, flags_of
from supervisor.cli.output import path_fields, print_json, say, shown, table
from supervisor.config import Reading, read
from supervisor.policy.sizes import human
from supervisor.settings import SETTINGS

_SETTINGS = frozenset({"state", "socket", "temp"})
_REAPER = frozenset(setting.name for setting in SETTINGS if setting.section == "reaper")
REAP_SECONDS = 600.0
"""A reap is answered when it is done; a million files take minutes on a slow disk."""
_EXAMPLES = """  supervisor temp stats --json
  supervisor temp reap --dry-run"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default="stats", choices=("stats", "reap"),
        help="what is there; or delete what is stale, now [stats]",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="with reap: only tell what would be deleted")


def _run(arguments: argparse.Namespace) -> int:
    reading = read(flags_of(arguments), _SETTINGS | _REAPER)
    reading.raise_faults()
    if arguments.what == "stats":
        _tell_usage(arguments, _usage(reading))
    else:
        _tell_report(arguments, _reap(reading, arguments.dry_run))
    return 0


def _running(reading: Reading) -> str | None:
    endpoint = endpoint_of(reading)
    return endpoint if endpoint is not None and is_listening(endpoint) else None


def _usage(reading: Reading) -> TempUsage:
    endpoint = _running(reading)
    if endpoint is not None:
        with Client(endpoint) as client:
            return ask(client, TempStats(), TempUsage)
    from supervisor.mechanism.temp import stats_offline

    path, token, private = _offline(reading)
    return stats_offline(path, token, private=private)


def _reap(reading: Reading, dry_run: bool) -> TempReport:
    endpoint = _running(reading)
    if endpoint is not None:
        with Client(endpoint, REAP_SECONDS) as client:
            return ask(client, TempReap(dry_run=dry_run), TempReport)
    from supervisor.mechanism.temp import reap_offline
    from supervisor.policy.temp import TempSettings

    path, token, private = _offline(reading)
    fields = {setting.field: reading.values[setting.name] for setting in SETTINGS if setting.name in _REAPER}
    return reap_offline(path, token, TempSettings(**fields), private=private, dry_run=dry_run)


def _offline(reading: Reading) -> tuple[str, str, bool]:
    """Returns the temp root, the state directory's token, and whether the root is its alone."""
    from supervisor.mechanism.state import StateDirectory

    state = StateDirectory(reading.state_directory)
    if not state.token:
        raise NoSupervisor(
            f"no supervisor runs on the state directory {reading.state_directory}, and none ever did; "
            "--state names another directory"
        )
    named: str | None = reading.values["temp"]
    return named or state.temp_directory, state.token, named is None


def _row(usage: TempUsage) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(usage)
    leases = [
        {**lease, **path_fields(own.directory, "directory")}
        for lease, own in zip(built["leases"], usage.leases, strict=True)
    ]
    return {
        **path_fields(usage.root, "root"),
        "bytes": usage.bytes,
        "files": usage.files,
        "open_deleted_bytes": usage.open_deleted_bytes,
        "by_source": usage.by_source,
        "leases": leases,
        "reaped_bytes_total": usage.reaped_bytes_total,
    }


def _tell_usage(arguments: argparse.Namespace, usage: TempUsage) -> None:
    if arguments.json:
        print_json(_row(usage))
        return
    print(
        f"temp directory {shown(usage.root)}: {human(usage.bytes)} in {usage.files:,} files, of which "
        f"{human(usage.open_deleted_bytes)} are deleted and still open; {len(usage.leases)} workers; "
        f"{human(usage.reaped_bytes_total)} reaped so far"
    )
    if usage.by_source:
        rows = sorted(usage.by_source.items(), key=lambda pair: -pair[1])
        print(table(("SOURCE", "SIZE"), [(source, human(size)) for source, size in rows], right="SIZE"))
    if usage.leases:
        rows_of = [(e.slot, e.pid, f"{e.files:,}", human(e.bytes), shown(e.directory)) for e in usage.leases]
        print(table(("SLOT", "PID", "FILES", "SIZE", "DIRECTORY"), rows_of, right="SLOT PID FILES SIZE"))


def _tell_report(arguments: argparse.Namespace, report: TempReport) -> None:
    if arguments.json:
        items = [{**msgspec.to_builtins(item), **path_fields(item.path)} for item in report.reaped]
        print_json(
            {
                "dry_run": report.dry_run,
                "reaped": items,
                "files": report.files,
                "bytes": report.bytes,
                "complaints": report.complaints,
            }
        )
        return
    for item in report.reaped:
        size = f"{item.files:,} files, {human(item.bytes)}"
        print(f"{os.path.basename(shown(item.path))}: {item.reason}; {size}")
    for complaint in report.complaints:
        say(complaint)
    would = "would be" if report.dry_run else "were"
    say(f"{len(report.reaped)} stale names {would} deleted: {report.files:,} files, {human(report.bytes)}")


VERBS = {"temp": Verb(_configure, _run, _SETTINGS, examples=_EXAMPLES)}
