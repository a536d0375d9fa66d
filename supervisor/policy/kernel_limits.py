"""The kernel's limit of each worker: so far above its hard limit that it is never reached while we look.

It follows the hard limit: up at once, before a lease's first item can need it; down only when it is far too high,
since every change is a write to the kernel.
"""

from supervisor.policy.commands import Command, LimitWorker
from supervisor.policy.sizes import MB
from supervisor.policy.state import PoolState

SLACK_BYTES = 64 * MB
"""What a worker can take between two looks, near its hard limit, on a machine that stutters."""
TOO_HIGH_BYTES = 32 * MB


def follow(state: PoolState) -> list[Command]:
    """Returns a command for each worker whose kernel limit is not what it should be."""
    if not state.settings.kernel_limits:
        return []
    commands: list[Command] = []
    for slot in state.slots:
        worker = slot.worker
        if worker is None or not worker.baseline_bytes or worker.state not in ("IDLE", "BUSY", "DRAINING"):
            continue
        hard = state.limits(slot).hard_bytes
        wanted = hard + max(SLACK_BYTES, hard // 4)
        if 0 <= worker.kernel_limit_bytes - wanted <= TOO_HIGH_BYTES:
            continue
        worker.kernel_limit_bytes = wanted + TOO_HIGH_BYTES // 2
        commands.append(
            LimitWorker(slot=slot.index, incarnation=worker.incarnation, limit_bytes=worker.kernel_limit_bytes)
        )
    return commands
