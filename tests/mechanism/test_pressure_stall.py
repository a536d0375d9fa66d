"""The share of stalled time over two seconds, from the kernel's counter in a tree of files."""

from pathlib import Path

import pytest

from supervisor.mechanism.memory import PressureStall


def tell(root: Path, micros: int) -> None:
    (root / "proc/pressure").mkdir(parents=True, exist_ok=True)
    (root / "proc/pressure/memory").write_text(
        f"some avg10=0.00 avg60=0.00 avg300=0.00 total={micros}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    )


def test_share_is_that_of_the_last_two_seconds(tmp_path: Path) -> None:
    tell(tmp_path, 5_000_000)
    stall = PressureStall(str(tmp_path))
    assert stall.share(100.0) is None, "no window yet"
    tell(tmp_path, 5_500_000)
    assert stall.share(101.0) is None
    tell(tmp_path, 6_000_000)
    assert stall.share(102.0) == pytest.approx(0.5)
    assert stall.share(102.01) == pytest.approx(0.5), "asked again at once it is not read anew"
    for second in (103.0, 104.0):
        assert stall.share(second) is not None
    assert stall.share(104.0) == 0.0, "what is past is forgotten"
    stall.close()


def test_where_the_kernel_tells_nothing_neither_do_we(tmp_path: Path) -> None:
    stall = PressureStall(str(tmp_path))
    assert stall.share(1.0) is None
    stall.close()
