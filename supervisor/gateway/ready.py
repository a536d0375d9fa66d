"""Whether work given now would be done now, and if not, why."""

from protocol.messages import MemoryReport, Status

STALL_SHARE = 0.25
"""A machine whose tasks wait for memory a quarter of the time thrashes: kubelet and oomd act on less."""
SWAP_IN_BYTES_PER_SECOND = 8_000_000.0
"""Reading back from swap as fast as an old disk can, while images are worked on."""


def why_not_ready(status: Status, memory: MemoryReport | None) -> list[str]:
    """Returns the reasons, none when it is ready."""
    reasons = []
    if status.draining:
        reasons.append("it is draining")
    if status.paused is not None:
        reasons.append(f"it is paused: {status.paused}")
    if status.level in ("emergency", "protection"):
        reasons.append(f"memory level {status.level}")
    if not any(worker.state in ("IDLE", "BUSY") for worker in status.workers):
        reasons.append("no worker is ready")
    if memory is not None:
        reasons += thrashing(memory)
    return reasons


def thrashing(memory: MemoryReport) -> list[str]:
    """Returns the signs that the machine moves memory about instead of working."""
    signs = []
    if memory.stall_share is not None and memory.stall_share >= STALL_SHARE:
        signs.append(f"thrashing: tasks wait for memory {memory.stall_share:.0%} of the time")
    if memory.swap_in_bytes_per_second >= SWAP_IN_BYTES_PER_SECOND:
        signs.append(f"thrashing: {memory.swap_in_bytes_per_second / 1e6:.0f} MB/s come back from swap")
    return signs
