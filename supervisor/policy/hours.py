"""When work is begun: between two times of the day, such as 22:00-06:00, by the machine's own clock.

The loop's clock knows no time of day, and must not jump when somebody sets the machine's. So the time of day comes
with each look at the machine, once a second at rest: the hours begin and end at most that late, follow a clock that
is set, and need no care in the two nights of the year in which summer time begins and ends. Images in progress at
the end of the hours are finished; what waits, waits.
"""

import msgspec

from supervisor.policy.commands import Command, Note

MINUTES_OF_DAY = 24 * 60


class Hours(msgspec.Struct, frozen=True):
    """From one minute of the day (counted from midnight) up to another, not included; the end may be past midnight."""

    begin_minute: int
    end_minute: int

    def hold(self, second_of_day: float) -> bool:
        """Tells whether a time of the day, in seconds since midnight, is within them."""
        minute = second_of_day / 60
        if self.begin_minute < self.end_minute:
            return self.begin_minute <= minute < self.end_minute
        return minute >= self.begin_minute or minute < self.end_minute

    @property
    def begin(self) -> str:
        """`22:00`"""
        return _clock(self.begin_minute)

    def __str__(self) -> str:
        return f"{self.begin}-{_clock(self.end_minute)}"


def _clock(minute: int) -> str:
    return f"{minute // 60 % 24:02}:{minute % 60:02}"


def why_off(hours: Hours | None, second_of_day: float | None) -> str | None:
    """Returns why nothing is begun at this time of the day; None where there are no hours, it is within them, or the
    time of the day is not told."""
    if hours is None or second_of_day is None or hours.hold(second_of_day):
        return None
    return f"outside its hours, {hours}: it goes on at {hours.begin} ('supervisor config set between none': at once)"


def tell(before: str | None, after: str | None) -> list[Command]:
    """Returns the note about hours that began or ended between two looks."""
    if after is not None and before is None:
        return [Note(kind="paused", message=f"{after}; images in progress are finished")]
    if after is None and before is not None:
        return [Note(kind="resumed", message="within its hours: work goes on")]
    return []
