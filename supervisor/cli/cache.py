"""`cache stats|trim|clear|verify|policy`: results kept by content, so that the same image is not worked on twice.

Where no supervisor runs, stats are read from the index as it lies there; the other verbs take the state directory
and do the same work as the supervisor would.
"""

import argparse
from typing import Any

import msgspec

from protocol.client import Client
from protocol.errors import UsageError
from protocol.messages import AskCache, CacheReport
from protocol.sockets import is_listening
from supervisor.cli.find import ask, endpoint_of
from supervisor.cli.options import Verb, flags_of
from supervisor.cli.output import print_json, say, table
from supervisor.config import Reading, read
from supervisor.policy.cache.settings import POLICY_NAMES
from supervisor.policy.cache.stats import CacheStats, StepTally, Verification
from supervisor.policy.sizes import human
from supervisor.values import parse

_SETTINGS = frozenset({"state", "socket", "cache-size", "cache-policy"})
VERB_SECONDS = 3600.0
"""A verification reads all that is kept: 10 GB from a slow disk in its idle moments."""
_EXAMPLES = """  supervisor cache stats --json
  supervisor cache trim 500MB
  supervisor cache verify --repair
  supervisor cache policy lru"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default="stats", choices=("stats", "trim", "clear", "verify", "policy"),
        help="what is there; less; nothing; is it sound; who stays [stats]",
    )  # fmt: skip
    parser.add_argument(
        "value", nargs="?", metavar="SIZE|NAME", help="trim: what may stay [0]; policy: " + ", ".join(POLICY_NAMES)
    )
    parser.add_argument("--repair", action="store_true", help="with verify: drop what is damaged, delete orphans")


def _run(arguments: argparse.Namespace) -> int:
    reading = read(flags_of(arguments), _SETTINGS)
    reading.raise_faults()
    request = _request(arguments)
    endpoint = endpoint_of(reading)
    if endpoint is not None and is_listening(endpoint):
        with Client(endpoint, VERB_SECONDS) as client:
            report = ask(client, request, CacheReport)
    else:
        report = _offline(reading, request)
    _tell(arguments, report)
    sound = report.verification is None or arguments.repair or _is_sound(report.verification)
    return 0 if sound else 1


def _request(arguments: argparse.Namespace) -> AskCache:
    what, value = arguments.what, arguments.value
    if value is not None and what not in ("trim", "policy"):
        raise UsageError(f"cache {what} takes no {value!r}; a size goes with trim, a name with policy")
    if arguments.repair and what != "verify":
        raise UsageError("--repair goes with 'cache verify'")
    size = None
    if what == "trim":
        try:
            size = parse("size", value) if value is not None else 0
        except ValueError as error:
            raise UsageError(f"cache trim {value}: {error}") from error
    return AskCache(verb=what, size_bytes=size, repair=arguments.repair, policy=value if what == "policy" else None)


def _offline(reading: Reading, request: AskCache) -> CacheReport:
    from supervisor.mechanism.cache.offline import do_offline, figures_offline
    from supervisor.mechanism.state import StateDirectory

    limit = reading.values["cache-size"]
    if request.verb == "stats" or (request.verb == "policy" and request.policy is None):
        return figures_offline(reading.state_directory, limit, request)
    figures_offline(reading.state_directory, limit, request)  # says what is wrong before anything is made
    state = StateDirectory(reading.state_directory)
    state.acquire()
    try:
        return do_offline(reading.state_directory, limit, reading.values["cache-policy"], request, say)
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        state.release()


def _is_sound(found: dict[str, Any]) -> bool:
    return msgspec.convert(found, Verification).sound


def _tell(arguments: argparse.Namespace, report: CacheReport) -> None:
    if arguments.json:
        print_json(_row(arguments.what, report))
        return
    if arguments.what == "stats":
        _tell_stats(report)
    elif arguments.what == "verify":
        _tell_verification(msgspec.convert(report.verification, Verification), repair=arguments.repair)
    elif arguments.what == "policy":
        say(report.message)
    else:
        kept = msgspec.convert(report.stats, CacheStats)
        say(f"{human(report.freed_bytes)} freed; {kept.entries:,} entries with {human(kept.bytes)} are kept")


def _row(what: str, report: CacheReport) -> dict[str, Any]:
    match what:
        case "verify":
            return dict(report.verification or {})
        case "trim" | "clear":
            return {"freed_bytes": report.freed_bytes, **report.stats}
    return report.stats


def _tell_stats(report: CacheReport) -> None:
    stats = msgspec.convert(report.stats, CacheStats)
    print(
        f"{stats.entries:,} entries with {human(stats.bytes)} of at most {human(stats.limit_bytes)}; policy "
        f"{stats.policy}; {stats.hits:,} hits, {stats.misses:,} misses: {stats.hit_rate:.1%} found; "
        f"{stats.culled:,} culled; {stats.memory_entries:,} entries with {human(stats.memory_bytes)} in memory"
    )
    steps = msgspec.convert(report.steps, list[StepTally])
    if steps:
        rows = [
            (
                f"{step.operation} {step.version}", step.step[:8], step.policy, f"{step.hits:,}",
                f"{step.first_sights:,}", f"{step.missed_again:,}", f"{step.stored:,}", f"{step.culled:,}",
                f"{step.reference_hit_rate:.1%}",
            )
            for step in steps
        ]  # fmt: skip
        heads = ("STEP", "KEY", "POLICY", "HITS", "FIRST", "AGAIN", "STORED", "CULLED", "FOUND")
        print(table(heads, rows, right="HITS FIRST AGAIN STORED CULLED FOUND"))
        print("FIRST: seen for the first time; AGAIN: seen before, not there any more; FOUND: of those seen before")


def _tell_verification(found: Verification, *, repair: bool) -> None:
    told = (
        f"{found.entries:,} entries and {found.blobs:,} files with {human(found.bytes)} were read; "
        f"{found.damaged:,} are damaged, {found.orphans:,} files belong to nothing; the index is {found.index}"
    )
    if found.sound:
        say(f"{told}: sound")
    elif repair:
        say(f"{told}: repaired, what was dropped is made again when it is needed")
    else:
        say(f"{told}: 'supervisor cache verify --repair' drops what is damaged")


VERBS = {"cache": Verb(_configure, _run, _SETTINGS, examples=_EXAMPLES)}
