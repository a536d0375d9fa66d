"""What a worker holds between two items: bytes, and Python's blocks without the reports that wait."""

import ctypes

from protocol.messages import ItemReport
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
