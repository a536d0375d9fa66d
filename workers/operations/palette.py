"""The colours a picture is made of, the most frequent first: for placeholders and for searching by colour."""

from typing import Any

from PIL import Image

from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

_SIDE = 96
_OPAQUE = 128


class Palette(Parameters, frozen=True, kw_only=True):
    """`colours`: how many at most, 1 to 32."""

    colours: int = 6


def _check(parameters: Palette) -> None:
    if not 1 <= parameters.colours <= 32:
        raise ValueError(f"colours: 1 to 32, not {parameters.colours}")


def _run(work: Work, parameters: Palette) -> dict[str, Any]:
    width, height = work.source.header.upright
    scale = min(1.0, _SIDE / max(width, height))
    picture = work.source.picture(max(1, round(width * scale)), max(1, round(height * scale)))
    return {"colours": [{"colour": colour, "share": share} for colour, share in palette(picture, parameters.colours)]}


def palette(picture: Image.Image, count: int) -> list[tuple[str, float]]:
    """Returns colours ("#rrggbb") with the part of the visible pixels that each stands for; they sum up to 1.

    By median cut, which splits by range and so finds a small red boat on a blue sea. Empty where nothing is visible.
    """
    visible = _visible(picture)
    if visible is None:
        return []
    reduced = visible.quantize(count, Image.Quantize.MEDIANCUT)
    colours = reduced.getpalette() or []
    counted: dict[str, int] = {}
    for found in reduced.getcolors() or []:
        number, index = found[0], found[1]
        assert isinstance(index, int)
        name = "#{:02x}{:02x}{:02x}".format(*colours[3 * index : 3 * index + 3])
        counted[name] = counted.get(name, 0) + number
    pixels = visible.width * visible.height
    return [(name, round(number / pixels, 4)) for name, number in sorted(counted.items(), key=lambda each: -each[1])]


def _visible(picture: Image.Image) -> Image.Image | None:
    """The opaque pixels in a row; of a picture without transparency, itself."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    raw = picture.tobytes()
    kept = b"".join(raw[at : at + 3] for at in range(0, len(raw), 4) if raw[at + 3] >= _OPAQUE)
    return Image.frombytes("RGB", (len(kept) // 3, 1), kept) if kept else None


def _side(header: Header, parameters: Parameters) -> int:
    return min(_SIDE, max(header.upright))


OPERATIONS = (
    Operation(name="palette", version=1, reads="pixels", run=_run, parameters=Palette, side=_side, check=_check),
)
