"""Real encoders' output, mutated: whatever comes of it is a verdict, in time, and leaves nothing behind.

The examples are the same in every run, so that a failure is one for everybody; GALLERY_FUZZ_EXAMPLES=20000 looks at
that many others, drawn anew. A decoder that crashes ends the run itself: that is the point of looking.
"""

import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.launch import ImageLimits
from tests.galleries import write
from tests.mechanism.performing import Bench, step
from tests.mechanism.test_formats import HEIC, previews, raw_file
from tests.mechanism.test_operations_more import XMP, camera_exif
from workers import specimens

SECONDS = 60.0
"""An item that takes longer is a hang: whole ones take some milliseconds."""
MORE = int(os.environ.get("GALLERY_FUZZ_EXAMPLES", "0"))
SOME = settings(deadline=None, derandomize=not MORE, database=None, suppress_health_check=list(HealthCheck))
LIMITS = ImageLimits(pixels_streamed=4_000_000, pixels_whole=4_000_000)
STEPS = (
    step("thumbnail", sizes=[64], metadata="keep", embedded=True), step("probe", full=True), step("phash"),
    step("thumbhash"), step("palette"), step("sharpness"),
)  # fmt: skip


@functools.cache
def whole() -> dict[str, bytes]:
    """Returns one sound file of each format, with metadata where it has a place."""
    picture = specimens.photo(120, 90, seed=1)
    told: dict[str, Any] = {"exif": b"Exif\0\0" + camera_exif(), "xmp": XMP}
    files = {
        kind.lower(): specimens.encoded(picture, kind) for kind in ("GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000")
    }
    files |= {kind.lower(): specimens.encoded(picture, kind, **told) for kind in ("JPEG", "PNG", "WEBP")}
    files |= {kind.lower(): specimens.encoded(picture, kind) for kind in ("PCX", "SGI", "DDS", "QOI")}
    files["avif"] = specimens.encoded(picture, "AVIF", speed=10)
    files["tiff-lzw"] = specimens.encoded(picture, "TIFF", compression="tiff_lzw")
    files["progressive"] = specimens.jpeg(picture, progressive=True)
    files["ico"] = specimens.encoded(picture.resize((64, 64)), "ICO")
    files["heic"] = HEIC
    files["nef"] = raw_file(previews())
    files["svg"] = b'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"><rect width="9" height="9"/></svg>'
    return files


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draws a file with some bytes changed, moved, doubled or cut off; most of it in the header."""
    name = draw(st.sampled_from(sorted(whole())))
    content = bytearray(whole()[name])
    for _ in range(draw(st.integers(1, 8))):
        near = draw(st.booleans())
        at = draw(st.integers(0, min(400, len(content) - 1) if near else len(content) - 1))
        what = draw(st.sampled_from(("set", "set", "set", "high", "cut", "double", "drop")))
        if what == "set":
            content[at] = draw(st.integers(0, 255))
        elif what == "high":
            content[at : at + 4] = draw(
                st.sampled_from((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1"))
            )
        elif what == "cut" and len(content) > 40:
            del content[max(at, 30) :]
        elif what == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        elif len(content) > 80:
            del content[at : at + draw(st.integers(1, 32))]
    return name, bytes(content)


@settings(SOME, max_examples=MORE or 300)
@given(mutated())
def test_a_mutated_file_has_a_verdict(tmp_path: Path, made: tuple[str, bytes]) -> None:
    name, content = made
    with tempfile.TemporaryDirectory(dir=tmp_path) as place:
        bench = Bench(place, LIMITS)
        path = write(place, f"f.{name}", content)
        began = time.perf_counter()
        report = bench.run(path, *STEPS)
        assert time.perf_counter() - began < SECONDS
        assert report.outcome in ("done", "failed"), report
        assert report.error is None or (
            report.error.kind not in ("crash", "timeout", "memory") and report.error.message
        )
        assert sorted(os.listdir(place)) == sorted({"temp", f"f.{name}", *(["out"] if report.written else [])})
        left = os.listdir(bench.out) if report.written else []
        assert not [each for each in left if each.startswith(".")]


@settings(SOME, max_examples=MORE or 100)
@given(mutated())
def test_a_mutated_file_is_stripped_or_has_a_verdict(tmp_path: Path, made: tuple[str, bytes]) -> None:
    name, content = made
    with tempfile.TemporaryDirectory(dir=tmp_path) as place:
        report = Bench(place, LIMITS).run(write(place, f"f.{name}", content), step("strip"))
        assert report.outcome in ("done", "failed") and (report.error is None or report.error.kind != "crash"), report
