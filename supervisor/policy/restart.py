"""When a dead worker may be replaced.

At once, as a rule: a worker that has worked and then died is replaced in milliseconds, and recycling is no
death. Only a worker that dies before it settled its first item is suspect of not being able to start at all
(a broken library, no memory): after `burst` such deaths within `period_seconds` the slot backs off, one second
doubling to a minute, with jitter so that slots that failed together do not start together. The first settled
item clears the record, and so does a worker that lived for a whole period without having been given one.
The other slots are not concerned: the pool serves on.
"""

from random import Random

import msgspec


class RestartSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How fast to back off."""

    burst: int = 3
    period_seconds: float = 60.0
    base_seconds: float = 1.0
    longest_seconds: float = 60.0

    def check(self) -> list[str]:
        """All faults, a sentence each; empty: the settings are sound."""
        faults = []
        if self.burst < 1:
            faults.append(f"burst is {self.burst}, must be at least 1")
        if not self.period_seconds > 0:
            faults.append(f"period_seconds is {self.period_seconds}, must be above 0")
        if not 0 < self.base_seconds <= self.longest_seconds:
            faults.append(
                f"base_seconds is {self.base_seconds}, must be above 0 and at most longest_seconds,"
                f" which is {self.longest_seconds}"
            )
        return faults


class Restarts(msgspec.Struct):
    """The record of one slot. `early_deaths` are times of deaths before a first settled item, within the period;
    `step` counts how often in a row it had to wait; `delay_seconds` is the last wait."""

    settings: RestartSettings = RestartSettings()
    early_deaths: list[float] = msgspec.field(default_factory=list)
    step: int = 0
    delay_seconds: float = 0.0

    @property
    def backing_off(self) -> bool:
        """Whether the last death had to wait."""
        return self.step > 0

    def died(self, now: float, items_settled: int, random: Random) -> float:
        """A worker is dead (or could not be started) after `items_settled` items. Returns the seconds to wait before
        the next start; 0: at once."""
        if items_settled > 0:
            self.settled()
            return 0.0
        settings = self.settings
        # The wait before its start does not count as life of the one that died.
        if self.early_deaths and now - self.early_deaths[-1] >= self.delay_seconds + settings.period_seconds:
            self.settled()
        recent = [at for at in self.early_deaths if now - at <= settings.period_seconds]
        self.early_deaths = [*recent, now][-settings.burst :]
        if self.step == 0 and len(self.early_deaths) < settings.burst:
            return 0.0
        self.delay_seconds = restart_delay(self.step, settings, random)
        self.step += 1
        return self.delay_seconds

    def settled(self) -> None:
        """A worker of this slot settled an item: all is forgiven."""
        self.early_deaths, self.step, self.delay_seconds = [], 0, 0.0


def restart_delay(step: int, settings: RestartSettings, random: Random) -> float:
    """Seconds of the wait number `step` (from 0): doubling, capped, then between half and all of it by chance."""
    doublings = min(step, 64)
    return min(settings.longest_seconds, settings.base_seconds * 2.0**doublings) * random.uniform(0.5, 1.0)
