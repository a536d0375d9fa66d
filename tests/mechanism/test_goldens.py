"""Every format, structure, colour space and bit depth comes out in its colours and upright (`tests.goldens`)."""

import itertools
import os
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.galleries import write
from tests.goldens import Golden, coded, plain, png, tiff, turned
from tests.mechanism.performing import Bench, outputs, step, warnings
from workers import specimens
from workers.images import cost
from workers.images.header import Header

SMALL, LARGE = (160, 120), (760, 570)
"""Below and above the size where the decoder changes from Pillow to libvips."""
SIDE = 64
GROUPS = (png, tiff, plain, coded, turned)


def off(bench: Bench, golden: Golden) -> str:
    """Returns what is wrong with the thumbnail of a golden image, nothing where it is right."""
    path = write(bench.directory, golden.name, golden.content)
    report = bench.run(path, step("thumbnail", sizes=[SIDE], format="png"))
    os.unlink(path)
    if report.error is not None:
        return f"{golden.name}: {report.error.message}"
    with Image.open(outputs(report)[0]["path"]) as made:
        shown = Image.alpha_composite(Image.new("RGBA", made.size, "white"), made.convert("RGBA")).convert("RGB")
    width, height = shown.size
    places = itertools.product((height // 4, height * 3 // 4), (width // 4, width * 3 // 4))
    found = [shown.getpixel((x, y)) for y, x in places]
    wanted = [quarter * 3 if len(quarter) == 1 else quarter for quarter in golden.quarters]
    sides = (SIDE, round(SIDE * golden.upright[1] / golden.upright[0]))
    differ = max(abs(a - b) for one, two in zip(found, wanted, strict=True) for a, b in zip(one, two, strict=True))  # type: ignore[arg-type]
    if differ > golden.tolerance or shown.size != sides:
        return f"{golden.name}: {shown.size}, {found} in place of {sides}, {wanted}; {warnings(report)}"
    return ""


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__.rpartition(".")[2])
def test_every_golden_image_shows_its_colours(tmp_path: Path, group: ModuleType, size: tuple[int, int]) -> None:
    bench = Bench(tmp_path)
    made = list(group.goldens(*size))
    assert len({golden.name for golden in made}) == len(made) > 20
    assert not [wrong for golden in made if (wrong := off(bench, golden))]


@pytest.mark.parametrize("engine", ["pillow", "vips"])
def test_either_decoder_shows_them_upright(
    tmp_path: Path, engine: cost.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the one that is asked only when the other refused."""
    choose = cost.choose

    def chosen(header: Header, target: tuple[int, int]) -> cost.Engine:
        can = header.format.pillow if engine == "pillow" else header.format.vips
        return engine if can and header.bits <= 8 and header.mode != "CMYK" else choose(header, target)

    monkeypatch.setattr(cost, "choose", chosen)
    bench = Bench(tmp_path)
    assert not [wrong for golden in turned.goldens(*SMALL) if (wrong := off(bench, golden))]


def test_a_golden_image_that_is_wrong_is_seen(tmp_path: Path) -> None:
    wrong = Golden("w.png", specimens.encoded(specimens.marked(160, 120).rotate(180), "PNG"))
    assert off(Bench(tmp_path), wrong)
