"""Tasks that wait for memory: the kernel wakes the supervisor, which brakes and says so."""

import pytest

from supervisor.mechanism.memory.pressure_stall import PressureStall
from supervisor.mechanism.memory.stall_trigger import why_missing
from tests.end_to_end.bed import make_bed, wait_for
from tests.end_to_end.groups import waiting_for_memory

SHARE = 0.000_5
"""A millisecond in two seconds."""


def test_the_supervisor_is_woken_and_brakes() -> None:
    stall = PressureStall()
    stall.close()
    if stall.source != "/proc/pressure/memory" or why_missing(stall.source, SHARE) is not None:
        pytest.skip(f"no trigger on the whole machine's pressure: {stall.source}, {why_missing(stall.source, SHARE)}")
    with make_bed() as bed:
        # Looked at every ten minutes at rest: within this test nobody but the trigger can say it.
        bed.start("--watch-interval-idle-seconds", "600s", "--watch-stale-after-seconds", "1200s")
        client = bed.client()
        assert bed.run("config", "set", "watch.stall_share_brake", str(SHARE)).code == 0
        with waiting_for_memory(bed.photo("written")):
            [told] = wait_for(
                lambda: [said for said in client.decisions(after=0, limit=1000) if said.kind == "stalled"],
                "it says that tasks wait for memory",
                60,
            )
            assert told.figures == {"brake_share": SHARE}
            wait_for(lambda: client.memory().stalled, "leases are of one image")
        client.close()
