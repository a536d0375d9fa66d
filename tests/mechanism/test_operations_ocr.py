"""The operation `ocr`: what is read, at which size, and with how much memory."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from protocol.errors import UnknownRecipe
from protocol.messages import ItemReport
from supervisor.recipes import BUILT_IN, all_recipes
from tests.galleries import write
from tests.mechanism.performing import Bench, recipe_of, step, values, warnings
from workers import specimens, text
from workers.errors import RecipeError
from workers.memory_lease import Bounded, Leases
from workers.models import Models

here = "ocr" in all_recipes({})
needs_ocr = pytest.mark.skipif(not here, reason="not installed: the extra 'ocr'")
SAID = ["The quick brown fox", "jumps over 1234 lazy dogs", "and goes home again"]


def page(size: tuple[int, int] = (1400, 900), letters: int = 44, *, colour: str = "black", mode: str = "RGB") -> bytes:
    """A page with three lines of text, as PNG."""
    picture = Image.new(mode, size, "white" if mode == "RGB" else (0, 0, 0, 0))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=letters)
    for number, line in enumerate(SAID):
        draw.text((size[0] // 20, size[1] // 8 + 3 * letters * number), line, colour, font)
    return specimens.encoded(picture, "PNG")


def bench_of(tmp_path: Path, pool_bytes: int | None = None) -> Bench:
    bench = Bench(tmp_path)
    if pool_bytes is not None:
        bench.context.leases = Leases(Bounded(pool_bytes))
        bench.context.models = Models(bench.context.leases)
    return bench


def read(bench: Bench, content: bytes, *, memory_bytes: int = 1 << 40, **parameters: Any) -> ItemReport:
    path = write(Path(bench.directory), "page.png", content)
    return bench.run(path, step("ocr", **parameters), memory_bytes=memory_bytes)


def told(report: ItemReport) -> dict[str, Any]:
    assert report.error is None and report.outcome == "done", report
    found: dict[str, Any] = values(report)["ocr"]
    return found


def letters(found: str) -> str:
    return "".join(found.lower().split())


@needs_ocr
def test_a_page_is_read_line_by_line_from_the_top(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    found = told(read(bench, page()))
    assert letters(found["text"]) == letters("".join(SAID))
    assert (found["width"], found["height"], found["side"], found["asked_side"]) == (1400, 900, 960, 960)
    tops = [line["box"][0][1] for line in found["lines"]]
    assert tops == sorted(tops) and all(0.5 <= line["confidence"] <= 1 for line in found["lines"])
    left, top = found["lines"][0]["box"][0]
    assert abs(left - 70) < 20 and abs(top - 115) < 25, "in pixels of the image"
    assert "lines" not in told(read(bench, page(), boxes=False))
    bench.context.models.close()


@needs_ocr
def test_white_letters_on_nothing_and_small_ones_on_a_large_page_are_read(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    found = told(read(bench, page(colour="white", mode="RGBA")))
    assert letters(found["text"]) == letters("".join(SAID))
    found = told(read(bench, page((2800, 1800), 40)))
    assert letters(found["text"]) == letters("".join(SAID)), "cut out of the larger picture"
    bench.context.models.close()


@needs_ocr
def test_with_less_memory_it_is_read_at_a_smaller_size_and_says_so(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, 400_000_000)
    first = read(bench, page())
    assert told(first)["side"] == 960 and not warnings(first)
    lender = bench.context.leases.lender
    assert isinstance(lender, Bounded)
    free = 60_000_000
    lender.limit_bytes = sum(lender.out.values()) + free
    less = read(bench, page(), memory_bytes=50_000_000)
    found = told(less)
    assert 320 <= found["side"] < 960 and letters(found["text"]) == letters("".join(SAID))
    assert warnings(less) == [
        f"text was looked for at {found['side']} pixels instead of 960: there is no memory for more"
    ]
    assert less.weighed is None, "what was taken under a lease says nothing of the image"
    bench.context.models.close()


@needs_ocr
def test_a_long_line_is_read_as_wide_as_memory_allows(tmp_path: Path) -> None:
    picture = Image.new("RGB", (1900, 200), "white")
    line = "the quick brown fox jumps over 1234 lazy dogs and goes home again to read a good book until late at night"
    ImageDraw.Draw(picture).text((20, 80), line, "black", ImageFont.load_default(size=32))
    content = specimens.encoded(picture, "PNG")
    bench = bench_of(tmp_path, 400_000_000)
    whole = read(bench, content)
    assert letters(told(whole)["text"]) == letters(line) and not warnings(whole)
    bench.context.leases.granted()
    waits = read(bench, content, memory_bytes=1_000_000)
    assert waits.outcome == "deferred", "what making its picture takes is its own"
    lender = bench.context.leases.lender
    assert isinstance(lender, Bounded)
    lender.limit_bytes = sum(lender.out.values()) + 1_000_000
    less = read(bench, content, memory_bytes=waits.needs_bytes)
    assert less.outcome == "done" and any("columns wide instead of" in said for said in warnings(less)), less
    bench.context.models.close()


@needs_ocr
def test_what_takes_part_in_the_result_is_part_of_the_version(tmp_path: Path) -> None:
    recipe = recipe_of(step("ocr"))
    assert recipe.version.startswith("ocr:2-") and len(recipe.version) == len("ocr:2-") + 12
    for side in (100, 5000):
        with pytest.raises(RecipeError, match="320 to 2048 are possible"):
            recipe_of(step("ocr", side=side))


@pytest.mark.skipif(here, reason="the extra 'ocr' is installed")
def test_without_the_extra_there_is_no_such_recipe_and_the_way_out_is_said() -> None:
    assert "ocr" in BUILT_IN and "ocr" not in all_recipes({})
    with pytest.raises(RecipeError, match=r"pip install 'gallery-supervisor\[ocr\]'"):
        recipe_of(step("ocr"))
    assert "gallery-supervisor[ocr]" in str(UnknownRecipe("ocr", ["thumbs"]))


def test_what_the_detector_sees_is_bounded_by_its_longest_side() -> None:
    assert text.seen_at(1400, 900, 960) == (960, 608)
    assert text.seen_at(200, 100, 960) == (384, 192), "a small picture is doubled, not more"
    assert text.seen_at(20_000, 30, 960) == (960, 32)
    needs = [text.finding_bytes(1400, 900, side) for side in (320, 480, 640, 960, 2048)]
    assert needs == sorted(needs) and needs[0] < 20_000_000 < needs[3] < 100_000_000


@needs_ocr
def test_long_lines_that_the_classifier_takes_for_turned_are_read_all_the_same(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    picture = Image.new("RGB", (1240, 600), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=21)
    lines = [f"page 1 line {line}: the quick brown fox jumps over {7 * line} dogs" for line in range(10)]
    for number, line in enumerate(lines):
        draw.text((80, 50 + 50 * number), line, "black", font)
    assert letters(told(read(bench, specimens.encoded(picture, "PNG")))["text"]) == letters("".join(lines))
    bench.context.models.close()


@needs_ocr
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_page_is_read_in_the_order_of_the_page_as_it_is_to_be_held(tmp_path: Path, degrees: int) -> None:
    """Long lines: squeezed as the library squeezes them, half of them are told to be the right way up."""
    picture = Image.new("RGB", (1240, 400), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=24)
    lines = [f"page 1 line {line}: the quick brown fox jumps over {7 * line} dogs" for line in range(6)]
    for number, line in enumerate(lines):
        draw.text((80, 50 + 50 * number), line, "black", font)
    bench = bench_of(tmp_path)
    content = specimens.encoded(picture.rotate(-degrees, expand=True), "PNG")
    found = told(read(bench, content))
    assert letters(found["text"]) == letters("".join(lines)) and found["turned"] == degrees
    left, top = (min(corner[axis] for corner in found["lines"][0]["box"]) for axis in (0, 1))
    near = {90: (400 - 74, 80), 180: (None, 400 - 74), 270: (50, None)}[degrees]
    for place, wanted in zip((left, top), near, strict=True):
        assert wanted is None or abs(place - wanted) < 25, "in pixels of the image as it is"
    assert told(read(bench, specimens.encoded(picture, "PNG")))["turned"] == 0
    bench.context.models.close()


def test_lines_are_ordered_as_most_of_the_text_stands() -> None:
    def line(text_: str, left: int, top: int, turned: int) -> text.Line:
        wide, high = (20, 100) if turned % 180 else (100, 20)
        corners = [(left, top), (left + wide, top), (left + wide, top + high), (left, top + high)]
        return text.Line(text_, 0.9, [(float(x), float(y)) for x, y in corners], turned)

    def order(turned: int, *places: tuple[int, int]) -> str:
        lines = [line(name, *place, turned) for name, place in zip("abcd", places, strict=False)]
        label = line("x", 500, 500, (turned + 90) % 360)
        assert text.turned([*lines, label]) == turned
        return "".join(each.text for each in text.in_order([label, *lines]) if each.text != "x")

    assert order(0, (200, 4), (0, 0), (0, 50)) == "bac"
    assert order(180, (0, 50), (200, 50), (0, 0)) == "bac"
    assert order(90, (60, 0), (60, 200), (0, 0)) == "abc"
    assert order(270, (0, 0), (0, 200), (60, 0)) == "bac"
    assert text.turned([]) == 0


def test_a_line_is_as_wide_as_memory_allows() -> None:
    assert text.columns_within(text.reading_bytes(1234)) == 1234
    assert text.columns_within(0) == text.LEAST_COLUMNS
