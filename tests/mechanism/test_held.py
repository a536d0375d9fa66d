"""What a worker holds between two items: bytes, and Python's blocks without the reports that wait."""

import ctypes
import os
from pathlib import Path
from statistics import median

import pytest

from protocol.messages import ItemReport
from tests.mechanism.performing import THUMBS, Bench, step
from workers import specimens
from workers.held import HeldMeter

SIZE = 100_000
ITEMS = 50


def _report(number: int) -> ItemReport:
    return ItemReport(id=1_000 + number, outcome="done", seconds=number / 7, written=[f"path of {number}"])


def _blocks(meter: HeldMeter) -> int:
    meter.read()
    return meter.blocks()


def _warmed() -> tuple[HeldMeter, list[ItemReport]]:
    meter, waiting = HeldMeter(), [_report(number) for number in range(ITEMS)]
    for _ in waiting:
        meter.waits()
    assert _blocks(meter) == 0, "not known what a report takes"
    meter.reported(waiting.clear)
    return meter, waiting


def test_objects_take_blocks_however_large_they_are_and_native_memory_takes_none() -> None:
    meter, _ = _warmed()
    kept: list[object] = []
    held, first = meter.read(), meter.blocks()
    kept += [b"x" * SIZE for _ in range(ITEMS)]
    more, then = meter.read(), meter.blocks()
    assert ITEMS <= then - first < 1.5 * ITEMS
    assert more - held > 0.9 * ITEMS * SIZE

    malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(("malloc", ctypes.CDLL(None)))
    free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(("free", ctypes.CDLL(None)))
    held, before = meter.read(), meter.blocks()
    taken = [malloc(SIZE) for _ in range(ITEMS)]
    more, after = meter.read(), meter.blocks()
    taken_blocks = len(taken)  # the pointers, as integers
    for one in taken:
        free(one)
    assert after - before <= taken_blocks + 10
    assert more - held > 0.9 * ITEMS * SIZE


def test_reports_that_wait_are_not_counted_and_what_is_kept_is() -> None:
    meter, waiting = _warmed()
    waiting += [_report(number) for number in range(ITEMS)]
    for _ in range(ITEMS):
        meter.waits()
    meter.reported(waiting.clear)
    first = _blocks(meter)
    for number in range(ITEMS):
        waiting.append(_report(number))
        meter.waits()
    assert abs(_blocks(meter) - first) < 2 * ITEMS, "each takes four at least"


@pytest.mark.parametrize(("native", "blocks"), [(True, 0), (False, 1)])
def test_a_step_is_charged_with_no_blocks_but_its_own(tmp_path: Path, native: bool, blocks: int) -> None:
    """One block an item tells Python's objects from native memory: what notes the figures must not take any."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(specimens.jpeg(specimens.photo(64, 48)))
    bench = Bench(tmp_path)
    steps = THUMBS, step("misbehave.leak", bytes=1_000, native=native), step("misbehave.error", only="another")
    reports = [bench.run(os.fsencode(photo), *steps, overwrite=True) for _ in range(400)]
    made = [report.step_blocks[2:] for report in reports if report.step_blocks]
    assert len(made) >= 3, "some hundredth of the time is for measuring"
    assert [median(each) for each in zip(*made, strict=True)] == [blocks, 0]
