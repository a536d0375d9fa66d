"""How near the whole is to its budget.

    normal < .75 elevated < .80 warning < .90 critical < .95 emergency < .98 protection      (used / budget)

A level is entered at once and left with delay. Two hystereses, as kubelet's eviction has them: a level
is left at a lower mark than it is entered at (`level_gap_share`), and only after it was calm for
`level_hold_seconds`. A value that lingers between the two marks would keep a level for ever, and with it whatever
the level forbids: after `level_stuck_seconds` there, the level is left too.

Beside the ratio two facts raise the level: little free memory on the machine (at least critical; emergency at half
of the minimum), and swapping in (at least warning).
"""

import enum

import msgspec

from protocol.messages import HeldLevel
from supervisor.policy.sizes import human
from supervisor.policy.watch_settings import WatchSettings


class Level(enum.IntEnum):
    """Levels in rising order. Warning: shrink leases. Critical: admit nothing, recycle. Emergency: kill.
    Protection: stop."""

    NORMAL = 0
    ELEVATED = 1
    WARNING = 2
    CRITICAL = 3
    EMERGENCY = 4
    PROTECTION = 5

    @property
    def word(self) -> str:
        """As it is written in JSON and for people."""
        return self.name.lower()


class Levels(msgspec.Struct):
    """The level of the moment and since when it could have been left."""

    settings: WatchSettings
    level: Level = Level.NORMAL
    acute: Level = Level.NORMAL
    """The level less its delay: what the last figures themselves call for, down to the lower mark. What takes
    something away (a trim, a recycle, a kill) follows this one: memory that is back is no reason to kill."""
    pressure: float = 0.0
    """Used / budget of the last update."""
    calm_since: float | None = None
    between_since: float | None = None
    entered: Level = Level.NORMAL
    """The level that the last figures would enter."""
    held_since: float | None = None
    """Since when they would not enter the level any more."""
    held_told: bool = False
    """That only its delay holds the level was said."""
    _figures: tuple[int, int, int, float] | None = None

    @property
    def reason(self) -> str:
        """The figures of the last update, for people."""
        if self._figures is None:
            return "nothing measured yet"
        used, budget, available, swap_in = self._figures
        swapping = f", swapping in {human(int(swap_in))} a second" if swap_in > 0 else ""
        return (
            f"{human(used)} of {human(budget)} used ({self.pressure:.0%}), {human(available)} available on the machine"
            f"{swapping}"
        )

    def update(
        self,
        used_bytes: int,
        budget_bytes: int,
        available_bytes: int,
        now: float,
        swap_in_bytes_per_second: float = 0.0,
    ) -> Level:
        """Take in one look at the whole and return the level. A budget of 0 or less is all used up."""
        self.pressure = used_bytes / budget_bytes if budget_bytes > 0 else 1.0
        absolute = self._absolute(available_bytes, swap_in_bytes_per_second)
        entered = max(self._by_share(self.pressure), absolute)
        held = max(self._by_share(self.pressure + self.settings.level_gap_share), absolute)
        self._move(entered, held, now)
        self.entered = entered
        self.held_since = _earlier(self.held_since, now) if entered < self.level else None
        self.acute = min(self.level, held)
        self._figures = (used_bytes, budget_bytes, available_bytes, swap_in_bytes_per_second)
        return self.level

    def held(self, now: float) -> HeldLevel | None:
        """Returns what holds the level where only its delay does; None where the last figures call for it."""
        if self.held_since is None:
            return None
        settings = self.settings
        return HeldLevel(
            now=self.entered.word,
            pressure=round(self.pressure, 4),
            eases_below=round(dict(self._marks())[self.level] - settings.level_gap_share, 4),
            hold_seconds=settings.level_hold_seconds,
            calm_seconds=_for_how_long(self.calm_since, now),
            stuck_seconds=settings.level_stuck_seconds,
            between_seconds=_for_how_long(self.between_since, now),
            held_seconds=_for_how_long(self.held_since, now),
        )

    def _move(self, entered: Level, held: Level, now: float) -> None:
        if entered >= self.level:
            self.level = entered
            self.calm_since = self.between_since = None
        elif held >= self.level:
            self.calm_since = None
            self.between_since = _earlier(self.between_since, now)
            if now - self.between_since >= self.settings.level_stuck_seconds:
                self._leave_for(entered)
        else:
            self.between_since = None
            self.calm_since = _earlier(self.calm_since, now)
            if now - self.calm_since >= self.settings.level_hold_seconds:
                self._leave_for(held)

    def _leave_for(self, level: Level) -> None:
        self.level = level
        self.calm_since = self.between_since = None

    def _by_share(self, share: float) -> Level:
        return next((level for level, mark in self._marks() if share >= mark), Level.NORMAL)

    def _marks(self) -> tuple[tuple[Level, float], ...]:
        settings = self.settings
        return (
            (Level.PROTECTION, settings.protection_share),
            (Level.EMERGENCY, settings.emergency_share),
            (Level.CRITICAL, settings.critical_share),
            (Level.WARNING, settings.warning_share),
            (Level.ELEVATED, settings.elevated_share),
        )

    def _absolute(self, available_bytes: int, swap_in_bytes_per_second: float) -> Level:
        minimum = self.settings.min_free_system_bytes
        if available_bytes < minimum // 2:
            return Level.EMERGENCY
        if available_bytes < minimum:
            return Level.CRITICAL
        if swap_in_bytes_per_second >= self.settings.swap_in_bytes_per_second:
            return Level.WARNING
        return Level.NORMAL


def _earlier(since: float | None, now: float) -> float:
    """Since when; a clock that went back starts the wait anew."""
    return now if since is None else min(since, now)


def _for_how_long(since: float | None, now: float) -> float:
    return 0.0 if since is None else round(max(0.0, now - since), 3)


def level_words(level: str, held: HeldLevel | None) -> str:
    """Returns a level as people read it, and why it stands where only its delay holds it."""
    if held is None:
        return level
    eases = f"eases below {held.eases_below:.0%} for {held.hold_seconds:g} s"
    if held.calm_seconds:
        eases = f"eases in {max(0.0, held.hold_seconds - held.calm_seconds):.1f} s"
    now = f"{held.pressure:.0%}"
    if now == f"{held.eases_below:.0%}":  # a little above it: else it would seem to be there
        now = f"{held.pressure:.1%}"
    return f"{level} (held: {now} now, {eases})"
