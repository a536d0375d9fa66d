"""Which death charges which image with what.

Only the item in progress can be charged, and the flight recorder names it. What it is charged with depends
on the cause of death, and the first cause known is the one that counts: an intention of ours (`hard_limit`,
`timeout`) is never overwritten by what the exit then looks like (`signal 9`).

| cause | meaning | charge |
|---|---|---|
| recycle, drain, template_died, start_timeout | we ended it, not because of the item | none |
| protocol | it said what no worker says; stray writes of a decoder may do that | outside, sooner a crash |
| timeout | no progress on an item within its time limit | timeout |
| hard_limit, emergency | our SIGKILL for memory | memory |
| kernel_oom | SIGKILL while the kernel counted an OOM kill | memory |
| killed_outside | SIGKILL that is not ours, no OOM kill counted, RSS below the soft limit | outside |
| killed | SIGKILL that is not ours, RSS above the soft limit: memory, most likely | memory |
| signal N, exit N | anything else | crash |
"""

import signal
from enum import Enum

import msgspec

from protocol.messages import ErrorKind
from supervisor.policy.items import Item

CRASH_DEATHS_ALLOWED = 1
"""A crash may be a coincidence (a neighbour corrupted shared state, the machine hiccuped): one retry, alone."""
TIMEOUT_TRIES = 1
"""The default. An item had the whole of its limit and spent it: a second try costs as much again, and another worker.
Worth more only where the machine is so loaded that the limit says little."""
MEMORY_DEATHS_ALLOWED = 1
"""One retry, with doubled reservation and the others drained."""
OUTSIDE_KILLS_ALLOWED = 5
"""Somebody else's kill is not charged up to five times; from the sixth on it counts as a crash."""
PROTOCOL_BREAKS_ALLOWED = 2
"""Of a worker that was at the item; from the third on it counts as a crash, or an image would do it for ever."""
UNCLEAN_STOPS_ALLOWED = 2
"""Quarantined at the third unclean stop in a row: an image that takes the machine down must not do so for ever."""

OURS = frozenset({"recycle", "drain", "rest", "template_died", "start_timeout"})
MEMORY = frozenset({"hard_limit", "emergency", "kernel_oom", "killed"})


class Charge(Enum):
    """What the item in progress is charged with."""

    NOTHING = "nothing"
    CRASH = "crash"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTSIDE = "outside"
    PROTOCOL = "protocol"


class Fate(Enum):
    """What becomes of an item whose worker died."""

    BACK = "back to the front of the queue, uncharged"
    ALONE = "again, in a lease of one"
    ALONE_DRAINED = "again, in a lease of one, with the others drained"
    QUARANTINE = "quarantined"


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's end, as found."""

    cause: str
    signal: int | None = None
    exit_code: int | None = None


def find_cause(
    intended: str | None, killed: bool, exit_code: int | None, oom_kills: int, rss_bytes: int, soft_bytes: int
) -> Death:
    """Returns the most precise cause there is. `intended` is why we ended the worker, if we did, and `killed` whether
    by KILL; one that was only asked to end may still have died of something else on the way. `exit_code` is
    negative for a signal and None where nobody could tell; `rss_bytes` is its last sample."""
    number = -exit_code if exit_code is not None and exit_code < 0 else None
    as_asked = exit_code in (0, -signal.SIGTERM) or (exit_code is None and not oom_kills)
    if intended is not None and (killed or as_asked):
        return Death(cause=intended, signal=number, exit_code=exit_code)
    if number == signal.SIGKILL or (exit_code is None and oom_kills):
        if oom_kills:
            cause = "kernel_oom"
        elif soft_bytes and rss_bytes >= soft_bytes:
            cause = "killed"
        else:
            cause = "killed_outside"
        return Death(cause=cause, signal=int(signal.SIGKILL), exit_code=exit_code)
    if number is not None:
        return Death(cause=f"signal {number}", signal=number, exit_code=exit_code)
    if exit_code is None:
        return Death(cause="unknown")
    return Death(cause=f"exit {exit_code}", exit_code=exit_code)


def charge_for(cause: str) -> Charge:
    """Returns what the item in progress is charged with (the table above)."""
    if cause in OURS:
        return Charge.NOTHING
    if cause in MEMORY:
        return Charge.MEMORY
    if cause == "timeout":
        return Charge.TIMEOUT
    if cause == "protocol":
        return Charge.PROTOCOL
    if cause in {"killed_outside", "unknown"}:
        return Charge.OUTSIDE
    return Charge.CRASH


def judge(item: Item, charge: Charge, timeout_tries: int = TIMEOUT_TRIES) -> Fate:
    """Raises the item's count and returns what becomes of it."""
    match charge:
        case Charge.NOTHING:
            return Fate.BACK
        case Charge.CRASH:
            item.charges += 1
            return Fate.QUARANTINE if item.charges > CRASH_DEATHS_ALLOWED else Fate.ALONE
        case Charge.TIMEOUT:
            item.charges += 1
            return Fate.QUARANTINE if item.charges >= timeout_tries else Fate.ALONE
        case Charge.MEMORY:
            item.memory_charges += 1
            return Fate.QUARANTINE if item.memory_charges > MEMORY_DEATHS_ALLOWED else Fate.ALONE_DRAINED
        case Charge.OUTSIDE:
            item.outside_kills += 1
            return judge(item, Charge.CRASH) if item.outside_kills > OUTSIDE_KILLS_ALLOWED else Fate.BACK
        case Charge.PROTOCOL:
            item.outside_kills += 1
            return judge(item, Charge.CRASH) if item.outside_kills > PROTOCOL_BREAKS_ALLOWED else Fate.BACK


def error_kind(cause: str) -> ErrorKind:
    """Returns the kind of the verdict on an item that was quarantined for this cause."""
    if cause == "timeout":
        return "timeout"
    return "memory" if cause in MEMORY else "crash"


def sentence(death: Death, step: int) -> str:
    """Returns the cause as a person would say it; `step` is the recipe step it died in, -1: none."""
    where = f" in step {step + 1}" if step >= 0 else ""
    match death.cause:
        case "timeout":
            return f"made no progress within its time limit{where}"
        case "hard_limit":
            return f"was killed at the worker's hard memory limit{where}"
        case cause if cause in OURS:
            return f"was in progress when its worker was ended ({cause}){where}"
        case "protocol":
            return f"had its worker say what no worker says{where}"
        case "emergency":
            return f"was killed because memory ran out{where}"
        case "kernel_oom":
            return f"was killed by the kernel, out of memory{where}"
        case "killed":
            return f"was killed (SIGKILL) while above its soft memory limit{where}"
        case "killed_outside":
            return f"was killed from outside (SIGKILL){where}"
        case _ if death.signal is not None:
            return f"killed its worker by signal {death.signal} ({_signal_name(death.signal)}){where}"
        case _ if death.exit_code is not None:
            return f"made its worker exit with code {death.exit_code}{where}"
        case _:
            return f"lost its worker{where}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
