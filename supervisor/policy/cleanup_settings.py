"""The figures of clean-ups, emergency protection and alerts: validated in one place. Durations are seconds."""

import msgspec


class CleanupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of clean-ups and of protection; `check` tells what is wrong with them."""

    gentle_cooldown_seconds: float = 30.0
    moderate_cooldown_seconds: float = 15.0
    aggressive_cooldown_seconds: float = 10.0
    emergency_cooldown_seconds: float = 5.0
    """A tier rests so long after it ran: what it could give it has given. The closer to the edge, the shorter."""
    periodic_seconds: float = 300.0
    """A pool without work is cleaned so often."""
    after_work_seconds: float = 1.0
    """When the last batch is over for so long, all is cleaned; the promise is 5 s."""
    verify_seconds: float = 5.0
    """By then memory must have come back; a worker that has not answered is named."""
    recovered_share: float = 1.10
    """Back within a tenth of the baseline counts as recovered."""
    history_count: int = 200
    attempts_max: int = 3
    """So many emergency clean-ups at the level protection, none of which helped, and the supervisor stops."""
    stops_within_seconds: float = 3_600.0
    """Two stops by protection within so long: the next start is a smaller one. Calm for so long clears them."""

    def cooldown_seconds(self, tier: str) -> float:
        """Returns how long a tier rests."""
        return float(getattr(self, f"{tier}_cooldown_seconds"))

    def check(self) -> list[str]:
        """All faults, a sentence each; empty: the settings are sound."""
        faults = [
            f"{name} is {getattr(self, name):g}, must not be negative"
            for name in self.__struct_fields__
            if name.endswith("_seconds") and getattr(self, name) < 0
        ]
        for name in ("periodic_seconds", "verify_seconds"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name):g}, must be above 0")
        if not self.recovered_share >= 1:
            faults.append(f"recovered_share is {self.recovered_share:g}, must be at least 1")
        if not 1 <= self.history_count <= 10_000:
            faults.append(f"history_count is {self.history_count}, must be from 1 to 10000")
        if self.attempts_max < 1:
            faults.append(f"attempts_max is {self.attempts_max}, must be at least 1")
        return faults


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of alerts."""

    cooldown_seconds: float = 300.0
    """The same alert is not told again for so long."""
    emergency_cooldown_seconds: float = 60.0
    """Nor one of an emergency."""
    per_hour: int = 60
    """More than so many an hour help nobody: the rest is counted, and told with the next."""
    timeout_seconds: float = 10.0
    """What the command or the webhook may take."""

    def check(self) -> list[str]:
        """All faults, a sentence each; empty: the settings are sound."""
        faults = [
            f"{name} is {getattr(self, name):g}, must not be negative"
            for name in ("cooldown_seconds", "emergency_cooldown_seconds")
            if getattr(self, name) < 0
        ]
        if self.per_hour < 1:
            faults.append(f"per_hour is {self.per_hour}, must be at least 1")
        if not self.timeout_seconds > 0:
            faults.append(f"timeout_seconds is {self.timeout_seconds:g}, must be above 0")
        return faults
