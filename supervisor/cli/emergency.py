"""`emergency cleanup|gc|status|reset|protection`: give memory back by hand, and what protection did or may do."""

import argparse
from typing import Any

import msgspec

from protocol.errors import UsageError
from protocol.messages import (
    TIERS,
    Cleanup,
    CleanupReport,
    EmergencyCleanup,
    EmergencyCollect,
    EmergencyProtection,
    EmergencyReset,
    EmergencyStatus,
    EmergencyStatusRequest,
)
from supervisor.cli.find import ask, connect
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json, say, table, when
from supervisor.policy.sizes import human

_WHAT = ("cleanup", "gc", "status", "reset", "protection")
_EXAMPLES = """  supervisor emergency cleanup aggressive
  supervisor emergency gc 3 --json
  supervisor emergency protection off"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default="status", choices=_WHAT, metavar="WHAT", help=f"{', '.join(_WHAT)} [status]"
    )
    text = f"cleanup: {', '.join(TIERS)} [moderate]; gc: cycles [1]; protection: on, off or status [status]"
    parser.add_argument("argument", nargs="?", metavar="ARGUMENT", help=text)
    text = "with reset: yes, forget attempts, cooldowns and earlier stops"
    parser.add_argument("--confirm", action="store_true", help=text)


def _run(arguments: argparse.Namespace) -> int:
    request = _request(arguments.what, arguments.argument, arguments.confirm)
    with connect(arguments) as client:
        if isinstance(request, EmergencyCleanup | EmergencyCollect):
            report = ask(client, request, CleanupReport).cleanup
            if arguments.json:
                print_json(msgspec.to_builtins(report))
            else:
                _tell_cleanup(report)
            return 0
        status = ask(client, request, EmergencyStatus)
    if arguments.json:
        row: dict[str, Any] = msgspec.to_builtins(status)
        print_json({key: value for key, value in row.items() if key not in ("type", "id")})
    elif arguments.what == "protection":
        print(_protection(status))
    else:
        _tell_status(status)
    return 0


_Request = EmergencyCleanup | EmergencyCollect | EmergencyStatusRequest | EmergencyReset | EmergencyProtection


def _request(what: str, argument: str | None, confirm: bool) -> _Request:
    """Returns what was asked for. Raises UsageError with what is possible."""
    if what == "cleanup":
        for tier in TIERS:
            if tier == (argument or "moderate"):
                return EmergencyCleanup(tier=tier)
        raise UsageError(f"there is no tier {argument!r}; choose one of {', '.join(TIERS)}")
    if what == "gc":
        if argument is not None and not argument.isdecimal():
            raise UsageError(f"gc takes a number of cycles, not {argument!r}")
        return EmergencyCollect(cycles=int(argument or "1"))
    if what == "protection" and argument in ("on", "off"):
        return EmergencyProtection(enabled=argument == "on")
    if argument is not None and (what, argument) != ("protection", "status"):
        possible = "on, off or status" if what == "protection" else "nothing"
        raise UsageError(f"emergency {what} takes {possible}, not {argument!r}")
    if what != "reset":
        return EmergencyStatusRequest()
    if not confirm:
        raise UsageError("emergency reset forgets attempts, cooldowns and earlier stops; say --confirm if it shall")
    return EmergencyReset()


def _tell_cleanup(cleanup: Cleanup) -> None:
    rows = [
        (action.name, action.owner, human(max(0, action.freed_bytes)), f"{action.seconds * 1000:.1f}", action.error)
        for action in cleanup.actions
    ]
    print(table(("ACTION", "OWNER", "FREED", "MS", "ERROR"), rows, right="FREED MS"))
    say(_line(cleanup))


def _line(cleanup: Cleanup) -> str:
    came = "memory came back" if cleanup.recovered else "memory did not come back"
    return (
        f"clean-up {cleanup.number} ({cleanup.tier}; {cleanup.reason}): {human(cleanup.before_bytes)} before, "
        f"{human(cleanup.after_bytes)} after, {human(cleanup.baseline_bytes)} at rest: {came}"
    )


def _tell_status(status: EmergencyStatus) -> None:
    used = f"{human(status.used_bytes)} of {human(status.budget_bytes)}"
    print(f"memory level {status.level}, {used} used ({status.pressure:.0%})")
    rows = [
        (tier.tier, tier.runs, when(tier.last_at), f"{tier.rests_seconds:.0f} of {tier.cooldown_seconds:.0f} s")
        for tier in status.tiers
    ]
    print(table(("TIER", "RUNS", "LAST", "RESTS"), rows, right="RUNS"))
    for cleanup in status.cleanups:
        print(f"{when(cleanup.at)}  {_line(cleanup)}")
    if status.parts:
        parts = [
            (part.name, "yes" if part.essential else "no", part.state, human(part.rss_bytes), part.restarts, part.note)
            for part in status.parts
        ]
        print(table(("PART", "ESSENTIAL", "STATE", "RSS", "RESTARTS", "NOTE"), parts, right="RSS RESTARTS"))
    print(_protection(status))


def _protection(status: EmergencyStatus) -> str:
    protection = status.protection
    text = f"emergency protection is {'on' if protection.enabled else 'off'}"
    text += f", {protection.attempts} of {protection.attempts_max} attempts made"
    if protection.stops:
        stops = ", ".join(when(at) for at in protection.stops)
        text += f"; it stopped supervisors here at {stops}"
    if protection.workers < protection.workers_configured:
        text += f"; {protection.workers} workers instead of {protection.workers_configured} for that"
    return text


VERBS = {"emergency": Verb(_configure, _run, examples=_EXAMPLES)}
