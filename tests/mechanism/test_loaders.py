"""libvips reads with many libraries, some of which were never meant for files of strangers: those stay blocked."""

from pathlib import Path
from typing import Any

import pytest

from workers.images.with_vips import library

UNTRUSTED = (
    "vipsload", "rawload", "analyzeload", "matload", "magickload", "pdfload", "openslideload", "fitsload", "niftiload",
    "openexrload",
)  # fmt: skip


@pytest.fixture
def native(tmp_path: Path) -> Path:
    """An image in libvips' own format, which any of the loaders may be pointed at."""
    path = tmp_path / "x.v"
    library().Image.black(8, 8).vipssave(str(path))
    return path


@pytest.mark.parametrize("loader", UNTRUSTED)
def test_untrusted_loaders_are_blocked(native: Path, loader: str) -> None:
    vips: Any = library()
    arguments = (8, 8, 1) if loader == "rawload" else ()
    try:
        load = getattr(vips.Image, loader)
        load(str(native), *arguments)
    except AttributeError:
        pytest.skip(f"this libvips was built without {loader}")
    except vips.Error as error:
        assert "operation is blocked" in str(error)
    else:
        pytest.fail(f"{loader} read a file")


def test_svg_is_let_in(tmp_path: Path) -> None:
    vips: Any = library()
    path = tmp_path / "x.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"><rect width="4" height="3"/></svg>')
    try:
        image = vips.Image.svgload(str(path))
    except AttributeError:
        pytest.skip("this libvips was built without librsvg")
    assert (image.width, image.height) == (4, 3)
