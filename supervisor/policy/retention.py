"""How long finished batches are remembered, by their kind.

A batch that is not finished is never dropped. Of the finished ones of a kind, those go that were not used for longer
than `age_seconds` (use: its end, and every look at it since), and, when more than `count` are left, the least
recently used. Before the record goes what is large: `results_age_seconds` after its last use a batch gives up the
values its images yielded, and keeps their verdicts and the names of their outputs.

What an image's outputs are called is remembered beyond that, as eight bytes each, so that a later batch may replace
what an earlier one wrote.
"""

from collections.abc import Iterable, Mapping

import msgspec

DAY_SECONDS = 86_400.0
DEFAULT_KIND = "default"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one kind. `results_age_seconds` None: half of the age."""

    age_seconds: float = 7 * DAY_SECONDS
    count: int = 1_000
    results_age_seconds: float | None = None

    @property
    def thin_seconds(self) -> float:
        """After how long unused the large results go."""
        return self.age_seconds / 2 if self.results_age_seconds is None else self.results_age_seconds

    def check(self) -> list[str]:
        """Returns a sentence for each fault."""
        faults = []
        if self.age_seconds <= 0:
            faults.append("age must be above 0: a batch must be there for who waits for it to read its results")
        if self.count < 1:
            faults.append("count must be at least 1, for the same reason")
        if self.results_age_seconds is not None and not 0 <= self.results_age_seconds <= self.age_seconds:
            faults.append("results_age must be at most age: results go before the record")
        return faults


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """The rules: one for each kind that has its own, and the general one."""

    general: Rule = Rule()
    kinds: dict[str, Rule] = {}
    sweep_seconds: float = 60.0

    def rule(self, kind: str) -> Rule:
        """Returns the rule of a kind."""
        return self.kinds.get(kind, self.general)


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A finished batch: `used_at` is its end or the last look at it, in seconds since the epoch."""

    number: int
    kind: str
    used_at: float
    thinned: bool = False


class Drop(msgspec.Struct, frozen=True):
    """A batch that goes, and why."""

    number: int
    reason: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is due, least recently used first."""

    drop: list[Drop]
    thin: list[int]


def due(finished: Iterable[Finished], retention: Retention, now: float) -> Verdict:
    """Judges all finished batches; `now` in seconds since the epoch. A kind without a rule of its own shares the
    general one's count with all others of that sort."""
    groups: dict[str | None, list[Finished]] = {}
    for batch in finished:
        groups.setdefault(batch.kind if batch.kind in retention.kinds else None, []).append(batch)
    drop: list[tuple[float, Drop]] = []
    thin: list[tuple[float, int]] = []
    for kind, group in groups.items():
        rule = retention.general if kind is None else retention.kinds[kind]
        group.sort(key=lambda batch: (batch.used_at, batch.number))
        too_many = len(group) - rule.count
        for place, batch in enumerate(group):
            unused = now - batch.used_at
            if unused > rule.age_seconds:
                reason = f"not used for {unused / 60:,.0f} min, the limit is {rule.age_seconds / 60:,.0f}"
                drop.append((batch.used_at, Drop(batch.number, reason)))
            elif place < too_many:
                reason = f"least recently used of {len(group):,} of its kind, the limit is {rule.count:,}"
                drop.append((batch.used_at, Drop(batch.number, reason)))
            elif not batch.thinned and unused > rule.thin_seconds:
                thin.append((batch.used_at, batch.number))
    return Verdict(
        drop=[each for _, each in sorted(drop, key=lambda pair: (pair[0], pair[1].number))],
        thin=[number for _, number in sorted(thin)],
    )


def from_settings(minutes: float, count: int, kinds: Mapping[str, Rule]) -> Retention:
    """Returns the retention as the settings say it."""
    return Retention(general=Rule(age_seconds=minutes * 60.0, count=count), kinds=dict(kinds))
