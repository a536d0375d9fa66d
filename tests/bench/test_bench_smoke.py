"""The benchmarks themselves, a thousandth as long: what they print has the shape that was promised. No timing."""

import json
import os
import subprocess
import sys

import msgspec
import pytest
from PIL import Image, ImageFilter

from tests.bench.report import json_line, markdown, table
from tests.bench.rows import Detail, Row, against, missing, p95, row
from tests.bench.ssim import ssim
from workers import specimens

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIELDS = {"name", "ours", "peer", "ratio", "unit", "target", "met", "machine"}


def test_a_tiny_benchmark_prints_one_object_a_row_and_leaves_nothing(tmp_path: os.PathLike[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "noop-one", "--json", "--quick", "--scale", "0.01"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3, done.stderr
    for found in rows:
        assert set(found) >= FIELDS
        assert found["ours"] > 0 and found["runs"] == 3 and "Python" in found["machine"]
    assert done.returncode == (1 if any(found["met"] is False for found in rows) else 0)
    assert rows[0]["met"] == (rows[0]["ours"] >= 10_000), "judged by its own figure"
    assert os.listdir(tmp_path) == []


def test_rows_are_judged_by_median_and_95th_percentile() -> None:
    values = [float(value) for value in range(1, 21)]
    assert (p95(values), p95(values, "more"), p95([7.0])) == (20.0, 1.0, 7.0)
    assert row("a", values, "ms", at_most=10.5).met is True
    assert row("a", values, "ms", at_most=10.5, p95_at_most=19).met is False
    assert row("a", values, "items/s", at_least=11).met is False
    assert row("a", values, "MB").met is None


def test_pairs_are_compared_run_by_run() -> None:
    faster = against("a", [10.0, 20.0, 30.0], "peer", [10.0, 10.0, 10.0], "items/s", ratio_at_least=1.5)
    assert (faster.ratio, faster.met) == (2.0, True)
    assert against("a", [10.0, 20.0, 30.0], "peer", [10.0, 10.0, 10.0], "s", better="less").ratio == 0.5


def test_the_table_names_what_is_missed_and_what_is_missing() -> None:
    rows = [row("slow", [3.0, 4.0, 5.0], "ms", at_most=1), missing("queue", "celery", "items/s")]
    text = "\n".join(table(rows))
    assert "MISSED" in text and "celery is not installed" in text
    assert msgspec.json.decode(json_line(rows[1], "here")) == {**msgspec.structs.asdict(rows[1]), "machine": "here"}
    assert isinstance(rows[1], Row)


def test_the_markdown_table_has_a_column_for_each_that_was_compared() -> None:
    ours = Detail(images_per_second=1234.0, peak_bytes=5_000_000, out_bytes=42_000, processor_seconds=1.0)
    one = msgspec.structs.replace(row("PNG", [1.0], "images/s"), details={"ours": ours, "Pillow": ours})
    other = msgspec.structs.replace(against("TIFF", [2.0], "Pillow", [1.0], "images/s"), details={"ours": ours})
    lines = markdown([one, other, row("no details", [1.0], "s")])[2:]
    assert lines[0] == "| class | ours | Pillow | ratio |" and len(lines) == 4
    assert lines[2] == "| PNG | 1,234, 5 MB, 42 KB | 1,234, 5 MB, 42 KB | – |"
    assert lines[3] == "| TIFF | 1,234, 5 MB, 42 KB | – | 2.00 × Pillow |"
    assert markdown([row("no details", [1.0], "s")]) == []


def test_likeness_is_one_of_the_same_and_falls_with_what_was_done() -> None:
    photo = specimens.photo(96, 64, seed=2)
    soft, softer = (photo.filter(ImageFilter.GaussianBlur(radius)) for radius in (0.5, 2.0))
    assert ssim(photo, photo) == pytest.approx(1.0)
    assert 1.0 > ssim(photo, soft) > ssim(photo, softer) > 0.0
    assert ssim(photo, Image.new("RGB", photo.size)) < 0.1
    with pytest.raises(ValueError, match="same size"):
        ssim(photo, photo.resize((95, 64)))
