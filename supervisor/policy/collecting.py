"""What giving memory back gave: gc, malloc_trim, native caches, each by itself.

A means is worth its time where a good part of what lies above the baseline comes back. Below USELESS_SHARE of it over
two runs or more (the last ones count most) the memory is in use, or in pieces: trimming such a worker again would only
cost time, so it is not trimmed any more, and replaced when it has to become smaller. That is remembered for the
incarnation: its successor is another.
"""

from protocol.messages import Collection, Trimmed
from supervisor.policy.collected import Collecting, Tally
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.worker import Worker

MAX_MEANS = 32
ALL = "all"


def on_trimmed(state: PoolState, slot: Slot, worker: Worker, trimmed: Trimmed) -> None:
    """Counts what a trim gave back. One with nothing above the baseline to give tells nothing."""
    kept = state.collecting.get(slot.index)
    if kept is None or kept.incarnation != worker.incarnation:
        kept = state.collecting[slot.index] = Collecting(incarnation=worker.incarnation, means={})
    parts = [(one.name, one.before_bytes, one.after_bytes) for one in trimmed.freed if one.error is None]
    for name, before, after in [*parts, (ALL, trimmed.before_bytes, trimmed.after_bytes)]:
        held = before - worker.baseline_bytes - state.memory_leases.reserved_bytes(slot.index)
        if held <= 0 or (name not in kept.means and len(kept.means) >= MAX_MEANS):
            continue
        kept.means.setdefault(name, Tally()).add(max(0, before - after), held)


def trimming_is_useless(state: PoolState, slot: Slot, worker: Worker) -> bool:
    """Tells whether this worker has shown that trimming gives nothing back."""
    kept = state.collecting.get(slot.index)
    if kept is None or kept.incarnation != worker.incarnation:
        return False
    tally = kept.means.get(ALL)
    return tally is not None and tally.useless


def collections(state: PoolState) -> list[Collection]:
    """Returns what each means gave in each worker that lives."""
    return [
        Collection(
            slot=slot.index,
            means=name,
            runs=tally.runs,
            freed_bytes=tally.freed_bytes,
            held_bytes=tally.held_bytes,
            useless=tally.useless,
        )
        for slot in state.slots
        if slot.worker is not None
        and (kept := state.collecting.get(slot.index)) is not None
        and kept.incarnation == slot.worker.incarnation
        for name, tally in kept.means.items()
    ]
