"""Ready is more than alive: it answers, and it gets work done.

A process that thrashes, a pool that is paused or drains, a pool in an emergency: all of them answer. Whoever asks
in order to send work (a load balancer, a service manager, a script) wants to know whether the work would be done.
"""

from protocol.messages import MemoryReport, Status
from supervisor.policy.sizes import human

THRASHING_STALL_SHARE = 0.5
"""Some task waited for memory for half of the time: what runs, runs at half its speed or less."""


def not_ready(status: Status, memory: MemoryReport | None = None) -> list[str]:
    """Returns the reasons why work would not be done now, sentences; empty: ready."""
    reasons = []
    if status.draining:
        reasons.append("it is draining")
    if status.paused:
        reasons.append(f"it is paused: {status.paused}")
    if not any(worker.state in ("IDLE", "BUSY", "DRAINING") for worker in status.workers):
        reasons.append("no worker is ready")
    if status.level in ("emergency", "protection"):
        reasons.append(f"memory level {status.level}")
    if memory is not None:
        reasons += _thrashing(memory)
    return reasons


def _thrashing(memory: MemoryReport) -> list[str]:
    limit = memory.thresholds.get("swap_in_bytes_per_second")
    if limit is not None and memory.swap_in_bytes_per_second >= limit:
        return [f"it is thrashing: {human(memory.swap_in_bytes_per_second)} a second are read back from swap"]
    if memory.stall_share is not None and memory.stall_share >= THRASHING_STALL_SHARE:
        return [f"it is thrashing: tasks wait for memory {memory.stall_share:.0%} of the time"]
    return []
