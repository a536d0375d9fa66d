"""What a supervisor with 4 workers costs while there is nothing to do: processor time of all its threads."""

import time
from collections.abc import Iterator

from tests.bench.house import House
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

WORKERS = 4
SECONDS = 10.0
SETTLING_SECONDS = 2.0
"""The first looks at new workers are closer together."""


def run(terms: Terms) -> Iterator[Row]:
    """Ten seconds a run, of one supervisor."""
    with House(workers=WORKERS) as house:
        time.sleep(SETTLING_SECONDS)
        pids = house.processes()
        own: list[float] = []
        whole: list[float] = []
        for _ in range(terms.runs):
            before = [_cpu_seconds(pid) for pid in pids]
            began = time.monotonic()
            time.sleep(SECONDS * terms.scale)
            passed = time.monotonic() - began
            spent = [after - then for after, then in zip(map(_cpu_seconds, pids), before, strict=True)]
            own.append(100 * spent[0] / passed)
            whole.append(100 * sum(spent) / passed)
    beside = f"with template and workers {sorted(whole)[len(whole) // 2]:.2g} %"
    yield row("supervisor at rest with 4 workers", own, "% of a core", at_most=0.1, beside=beside)


def _cpu_seconds(pid: int) -> float:
    """The processor clock of another process (clock_getcpuclockid(3)): nanoseconds, where /proc tells hundredths."""
    return time.clock_gettime(((~pid) << 3) | 2)
