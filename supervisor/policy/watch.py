"""What a look at a worker's memory means, and who has to give way when the whole is short.

One pass is a pipeline of pure functions: sample -> limits (`limits`) -> verdict on each worker (`judge`);
total -> level (`levels`) -> one victim (`choose_victim`); headroom and growth -> next look (`interval`). Remedies
in this order: trim and shrink, hand back, recycle, kill.

Rules that others paid for: one victim at a time and none while the last one's memory is not back; a victim must
have something to give (a worker at its baseline comes back just as large); a sample that is missing or stale is
a case with a name, in which nothing is decided and nothing admitted.
"""

import enum
from collections.abc import Iterable, Sequence

import msgspec

from supervisor.policy.counted import counted
from supervisor.policy.levels import Level
from supervisor.policy.limits import Limits
from supervisor.policy.sizes import human
from supervisor.policy.watch_settings import WatchSettings


class Action(enum.Enum):
    """What to do about one worker."""

    CALM = "calm"
    STALE = "stale"
    """Its memory is not known: admit nothing to it, decide nothing about it."""
    TRIM_AND_SHRINK = "trim_and_shrink"
    """Give memory back, halve the batch, hand the rest of the lease back."""
    WIDEN = "widen"
    """Due to be recycled too soon after its start: widen its allowance (`Widenings`) and warn, instead."""
    RECYCLE = "recycle"
    """Replace it after the item in progress."""
    KILL = "kill"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with the figures it was taken on."""

    action: Action
    reason: str
    rss_bytes: int | None = None
    limit_bytes: int | None = None
    """The limit that was reached; None: none."""


class WorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one worker. `rss_bytes` (swap included) was sampled at `sampled_at`; None: no sample could be
    taken. `items_settled` counts since its start. Heap and native are its own report, None where it made none."""

    slot: int
    rss_bytes: int | None
    sampled_at: float
    items_settled: int
    heap_bytes: int | None = None
    native_bytes: int | None = None


def judge(facts: WorkerFacts, limits: Limits, settings: WatchSettings, now: float) -> Verdict:
    """What one worker's memory calls for. Killing goes first: no other remedy is as fast as a gigabyte a second."""
    rss = facts.rss_bytes
    unknown = staleness(rss, facts.sampled_at, settings, now)
    if rss is None or unknown is not None:
        return Verdict(action=Action.STALE, reason=f"worker {facts.slot}: {unknown}", rss_bytes=rss)
    if rss >= limits.hard_bytes:
        return _reached(facts.slot, Action.KILL, "hard limit", rss, limits.hard_bytes, limits)
    if rss >= limits.recycle_bytes:
        if facts.items_settled < settings.min_items_between_recycles:
            return _too_soon(facts, rss, limits, settings)
        return _reached(facts.slot, Action.RECYCLE, "recycle limit", rss, limits.recycle_bytes, limits)
    over = _over_own_report(facts, settings)
    if over is not None:
        return over
    if rss >= limits.soft_bytes:
        return _reached(facts.slot, Action.TRIM_AND_SHRINK, "soft limit", rss, limits.soft_bytes, limits)
    reason = f"worker {facts.slot}: below its soft limit"
    return Verdict(action=Action.CALM, reason=reason, rss_bytes=rss)


def _reached(slot: int, action: Action, name: str, rss: int, limit: int, limits: Limits) -> Verdict:
    reason = f"worker {slot}: {human(rss)} reached its {name} of {human(limit)} ({limits})"
    return Verdict(action=action, reason=reason, rss_bytes=rss, limit_bytes=limit)


def _too_soon(facts: WorkerFacts, rss: int, limits: Limits, settings: WatchSettings) -> Verdict:
    reason = (
        f"worker {facts.slot}: {human(rss)} reached its recycle limit of {human(limits.recycle_bytes)}"
        f" after {counted(facts.items_settled, 'item')}, fewer than {settings.min_items_between_recycles}:"
        " its successor would do so too"
    )
    # At the widest nothing is left but to keep it small; the hard limit decides.
    action = Action.TRIM_AND_SHRINK if limits.widest else Action.WIDEN
    return Verdict(action=action, reason=reason, rss_bytes=rss, limit_bytes=limits.recycle_bytes)


def _over_own_report(facts: WorkerFacts, settings: WatchSettings) -> Verdict | None:
    """The absolute limits on what a worker says of itself; they recycle, or trim while it is too young for that."""
    reports = (
        ("Python heap", facts.heap_bytes, settings.max_worker_heap_bytes),
        ("native memory", facts.native_bytes, settings.max_worker_native_bytes),
    )
    for name, size, limit in reports:
        if size is not None and limit is not None and size >= limit:
            young = facts.items_settled < settings.min_items_between_recycles
            action = Action.TRIM_AND_SHRINK if young else Action.RECYCLE
            reason = f"worker {facts.slot}: {name} of {human(size)} reached its limit of {human(limit)}"
            return Verdict(action=action, reason=reason, rss_bytes=facts.rss_bytes, limit_bytes=limit)
    return None


def staleness(rss_bytes: int | None, sampled_at: float, settings: WatchSettings, now: float) -> str | None:
    """Why a sample is no fact: missing, or too old; None: it is one."""
    if rss_bytes is None:
        return "its memory could not be sampled"
    age = now - sampled_at
    if age > settings.stale_after_seconds:
        return f"its last sample is {age:.1f} s old, more than {settings.stale_after_seconds:g} s"
    return None


def judge_item_time(
    slot: int, item_started: float | None, now: float, limit_seconds: float, what: str = "its item"
) -> Verdict:
    """Whether the item in progress, begun at `item_started` (None: none in progress), passed its time limit.
    `what` says what runs.

    Silence inside a step is not death: only the limit decides.
    """
    if item_started is None or now - item_started < limit_seconds:
        return Verdict(action=Action.CALM, reason=f"worker {slot}: within the time limit of {limit_seconds:g} s")
    reason = f"worker {slot}: {what} runs for {now - item_started:.1f} s, the limit is {limit_seconds:g} s"
    return Verdict(action=Action.KILL, reason=reason)


def total_used(own_bytes: int, workers: Iterable[tuple[int, int]], cgroup_used_bytes: int | None) -> int:
    """What counts against the budget. `workers` are (RSS, shared part) of each; `own_bytes` holds the supervisor
    and the whole template, so that shared pages count once. The figure of a control group, if any, is the truth."""
    if cgroup_used_bytes is not None:
        return cgroup_used_bytes
    return own_bytes + sum(max(0, rss - shared) for rss, shared in workers)


def strangers_bytes(own_bytes: int, workers: Iterable[tuple[int, int]], cgroup_used_bytes: int | None) -> int:
    """What processes that are not ours hold in our control group: to be added to `own_bytes` for the limits."""
    if cgroup_used_bytes is None:
        return 0
    return max(0, cgroup_used_bytes - total_used(own_bytes, workers, None))


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that could give way. `leaving`: it drains or was asked to stop; `dying`: SIGKILL was sent, and its
    memory is not back."""

    slot: int
    rss_bytes: int | None
    sampled_at: float
    baseline_bytes: int
    items_settled: int
    leaving: bool = False
    dying: bool = False


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Who gives way, and how; `slot` None: nobody, for the reason given."""

    slot: int | None
    action: Action
    reason: str


_REMEDY = {
    Level.NORMAL: Action.CALM,
    Level.ELEVATED: Action.CALM,
    Level.WARNING: Action.TRIM_AND_SHRINK,
    Level.CRITICAL: Action.RECYCLE,
    Level.EMERGENCY: Action.KILL,
    Level.PROTECTION: Action.KILL,
}


def choose_victim(level: Level, candidates: Sequence[Candidate], settings: WatchSettings, now: float) -> Choice:
    """One worker that gives way for the whole: the one with the most above its baseline.

    Nobody while another is dying, and none is recycled while another is leaving; but an emergency does not wait
    for a worker that drains: it may be the one that is killed. Nobody who has less to give than the smallest
    allowance. At critical a worker too young to be recycled trims.
    """
    action = _REMEDY[level]
    if action is Action.CALM:
        return Choice(slot=None, action=Action.CALM, reason=f"level {level.word}: nobody has to give way")
    awaited = [c.slot for c in candidates if c.dying or (c.leaving and action is Action.RECYCLE)]
    if awaited:
        return Choice(slot=None, action=Action.CALM, reason=f"waiting until the memory of worker {awaited[0]} is back")
    if action is not Action.KILL:
        candidates = [candidate for candidate in candidates if not candidate.leaving]
    known = [c for c in candidates if staleness(c.rss_bytes, c.sampled_at, settings, now) is None]
    if candidates and not known:
        return Choice(slot=None, action=Action.STALE, reason=f"level {level.word}: no worker has a fresh sample")
    worth = [candidate for candidate in known if _excess(candidate) >= settings.smallest_allowance_bytes]
    if not worth:
        least = human(settings.smallest_allowance_bytes)
        reason = f"level {level.word}: no worker holds {least} or more above its baseline"
        return Choice(slot=None, action=Action.CALM, reason=reason)
    victim = max(worth, key=lambda candidate: (_excess(candidate), -candidate.slot))
    if action is Action.RECYCLE and victim.items_settled < settings.min_items_between_recycles:
        action = Action.TRIM_AND_SHRINK
    reason = f"level {level.word}: worker {victim.slot} holds most above its baseline, {human(_excess(victim))}"
    return Choice(slot=victim.slot, action=action, reason=reason)


def _excess(candidate: Candidate) -> int:
    return (candidate.rss_bytes or 0) - candidate.baseline_bytes
