"""What the supervisor and 4 idle workers take together, and that it stays so: the proportional set size of all
processes of the tree, template included, fresh and after a million no-op items."""

from collections.abc import Iterator

from tests.bench.house import House
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

WORKERS = 4
CHUNK = 100_000
MB = 1_000_000


def run(terms: Terms) -> Iterator[Row]:
    """One supervisor; its memory does not vary by a percent from run to run."""
    items = terms.count(10, 1) * terms.count(CHUNK)
    with House(workers=WORKERS) as house:
        fresh = _pss_bytes(house)
        for start in range(0, items, CHUNK):
            names = [f"2024/{number:07d}.jpg" for number in range(start, min(items, start + CHUNK))]
            house.run("noop", "/nowhere", names)
        house.wait_idle()
        after = _pss_bytes(house)
        count = len(house.processes())
    yield row("supervisor and 4 idle workers, PSS", [fresh / MB], "MB", at_most=100, beside=f"{count} processes")
    yield row(f"the same after {items:,} no-op items", [after / MB], "MB", at_most=100)


def _pss_bytes(house: House) -> int:
    total = 0
    for pid in house.processes():
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    return total
