"""What watching costs: processor time of all threads of a supervisor, with 4 workers at rest and with 16 at work.

Those at work are all inside one long item (they sleep): no lease is granted, nothing is reported or committed, so that
what the supervisor spends is spent on looking.
"""

import os
import time
from collections.abc import Iterator

from tests.bench.house import House, until
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

WORKERS = 4
BUSY_WORKERS = 16
HANG = """
[recipes.hang]
steps = [{ operation = "misbehave.hang", seconds = 3000.0 }]
"""
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
            before = [cpu_seconds(pid) for pid in pids]
            began = time.monotonic()
            time.sleep(SECONDS * terms.scale)
            passed = time.monotonic() - began
            spent = [after - then for after, then in zip(map(cpu_seconds, pids), before, strict=True)]
            own.append(100 * spent[0] / passed)
            whole.append(100 * sum(spent) / passed)
    beside = f"with template and workers {sorted(whole)[len(whole) // 2]:.2g} %"
    yield row("supervisor at rest with 4 workers", own, "% of a core", at_most=0.1, beside=beside)


def busy(terms: Terms) -> Iterator[Row]:
    """Sixteen workers inside a long item each, more than half the budget free."""
    with House("--batch-size-max", "1", "--memory", "3G", workers=BUSY_WORKERS, config=HANG) as house:
        names = [f"long-{number}.jpg" for number in range(BUSY_WORKERS)]
        photos = os.path.join(house.directory, "photos")
        os.mkdir(photos)
        for name in names:
            with open(os.path.join(photos, name), "wb"):
                pass
        batch = house.submit("hang", photos, names, os.path.join(house.directory, "out"))
        until(lambda: all(worker.state == "BUSY" for worker in house.status().workers), "all workers are busy")
        time.sleep(SETTLING_SECONDS)
        spent: list[float] = []
        for _ in range(terms.runs):
            before, began = cpu_seconds(house.process.pid), time.monotonic()
            time.sleep(SECONDS * terms.scale)
            spent.append(100 * (cpu_seconds(house.process.pid) - before) / (time.monotonic() - began))
        status = house.status()
        house.client.cancel(batch)
    beside = f"{status.pressure:.0%} of the budget used"
    yield row("supervisor with 16 busy workers", spent, "% of a core", at_most=1, beside=beside)


def cpu_seconds(pid: int) -> float:
    """Returns what the processor clock of another process says (clock_getcpuclockid(3)): nanoseconds, where /proc tells
    hundredths. Raises OSError where there is no such process."""
    return time.clock_gettime(((~pid) << 3) | 2)
