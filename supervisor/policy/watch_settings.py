"""Every figure of the memory watch: validated and related in one place.

Shares are of the budget, sizes are bytes, durations seconds.
"""

from itertools import pairwise

import msgspec

from supervisor.policy.sizes import GB, MB


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the memory watch; `check` tells what is wrong with them."""

    elevated_share: float = 0.75
    warning_share: float = 0.80
    critical_share: float = 0.90
    emergency_share: float = 0.95
    protection_share: float = 0.98
    level_gap_share: float = 0.03
    """A level is left this much below where it is entered: smaller than the distance of any two levels."""
    level_hold_seconds: float = 2.0
    """It must be calm for so long before a level is left: twenty looks at the slowest busy pace."""
    level_stuck_seconds: float = 10.0
    """Between the two marks for so long, a level is left all the same: nothing pauses for ever between thresholds."""

    interval_min_seconds: float = 0.010
    """A worker that allocates 1 GB/s gets 10 MB between two looks."""
    interval_max_seconds: float = 0.100
    interval_idle_seconds: float = 1.0
    interval_rest_seconds: float = 2.0
    """The pace of an idle pool far from every edge: where even neighbours that take 1 GB/s would need twice as long to
    fill what is free. At most four fifths of `stale_after_seconds`, or each look would come too late."""
    growth_floor_bytes_per_second: float = 1 * GB
    """The growth that is always reckoned with: what one core can touch of fresh pages."""
    stale_after_seconds: float = 2.5
    """A sample older than two looks at the idle pace is no longer a fact."""

    allowance_warning_bytes: int = 50 * MB
    allowance_critical_bytes: int = 70 * MB
    keep_free_bytes: int = 30 * MB
    smallest_allowance_bytes: int = 8 * MB
    """With less above its baseline a worker can do nothing: the decoded form of a 2-megapixel photo takes 6 MB."""
    min_free_system_bytes: int = 100 * MB
    stall_share_brake: float = 0.10
    """Above it leases are of one item and do not grow; it never kills: it comes late and speaks of neighbours too."""
    swap_in_bytes_per_second: float = 4 * MB
    """1,024 pages a second read back from swap: the machine is short of memory whatever the sizes say."""

    max_total_bytes: int | None = None
    max_worker_rss_bytes: int | None = None
    max_worker_heap_bytes: int | None = None
    max_worker_native_bytes: int | None = None
    max_supervisor_rss_bytes: int | None = 250 * MB
    """It is at 40 MB at rest and stays below 100 MB at work, without the cache's memory level of up to 50 MB."""
    max_template_rss_bytes: int | None = 500 * MB
    """It holds the libraries of all recipes, some 45 MB without models' runtimes."""

    min_items_between_recycles: int = 3
    """A worker recycled before it settled so many items would be recycled for ever: its allowance is too small."""
    widening_factor: float = 1.5

    def check(self) -> list[str]:
        """All faults, a sentence each; empty: the settings are sound."""
        return [*self._faults_of_levels(), *self._faults_of_interval(), *self._faults_of_sizes()]

    def _shares(self) -> list[tuple[str, float]]:
        names = ("elevated", "warning", "critical", "emergency", "protection")
        return [(f"{name}_share", getattr(self, f"{name}_share")) for name in names]

    def _faults_of_levels(self) -> list[str]:
        shares = self._shares()
        faults = [f"{name} is {share}, must be above 0 and at most 1" for name, share in shares if not 0 < share <= 1]
        for (low_name, low), (high_name, high) in pairwise(shares):
            if not low < high:
                faults.append(f"{low_name} is {low}, must be below {high_name}, which is {high}")
        if not 0 < self.level_gap_share < self.elevated_share:
            faults.append(f"level_gap_share is {self.level_gap_share}, must be above 0 and below elevated_share")
        if not 0 <= self.level_hold_seconds <= self.level_stuck_seconds:
            faults.append(
                f"level_hold_seconds is {self.level_hold_seconds}, must be between 0 and level_stuck_seconds,"
                f" which is {self.level_stuck_seconds}"
            )
        return faults

    def _faults_of_interval(self) -> list[str]:
        faults = []
        if not 0.001 <= self.interval_min_seconds <= self.interval_max_seconds <= self.interval_idle_seconds:
            faults.append(
                "intervals must satisfy 0.001 <= interval_min_seconds <= interval_max_seconds <= interval_idle_seconds,"
                f" but are {self.interval_min_seconds}, {self.interval_max_seconds}, {self.interval_idle_seconds}"
            )
        if not self.stale_after_seconds >= 2 * self.interval_idle_seconds:
            faults.append(
                f"stale_after_seconds is {self.stale_after_seconds}, must be at least twice interval_idle_seconds,"
                f" which is {self.interval_idle_seconds}"
            )
        if not 0 < self.stall_share_brake <= 1:
            faults.append(f"stall_share_brake is {self.stall_share_brake}, must be above 0 and at most 1")
        for name in ("growth_floor_bytes_per_second", "swap_in_bytes_per_second"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}, must be above 0")
        return faults

    def _faults_of_sizes(self) -> list[str]:
        faults = []
        if not 0 < self.allowance_warning_bytes < self.allowance_critical_bytes:
            faults.append(
                f"allowance_warning_bytes is {self.allowance_warning_bytes}, must be above 0 and below"
                f" allowance_critical_bytes, which is {self.allowance_critical_bytes}"
            )
        for name in ("keep_free_bytes", "min_free_system_bytes"):
            if getattr(self, name) < 0:
                faults.append(f"{name} is {getattr(self, name)}, must not be negative")
        if self.smallest_allowance_bytes < MB:
            faults.append(f"smallest_allowance_bytes is {self.smallest_allowance_bytes}, must be at least {MB}")
        for name in (
            "max_total_bytes",
            "max_worker_rss_bytes",
            "max_worker_heap_bytes",
            "max_worker_native_bytes",
            "max_supervisor_rss_bytes",
            "max_template_rss_bytes",
        ):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                faults.append(f"{name} is {limit}, must be above 0, or not set")
        if self.min_items_between_recycles < 1:
            faults.append(f"min_items_between_recycles is {self.min_items_between_recycles}, must be at least 1")
        if not self.widening_factor > 1:
            faults.append(f"widening_factor is {self.widening_factor}, must be above 1")
        return faults
