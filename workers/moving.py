"""The frames of a moving image, one after the other: each is drawn whole, upright, and gone when the next comes."""

from collections.abc import Iterator
from typing import Final

import msgspec
from PIL import Image

from workers.errors import Verdict
from workers.images import with_pillow
from workers.images.header import REFUSALS, reason
from workers.source import Source

FORMATS: Final = frozenset({"gif", "webp", "png", "avif"})
_DEFAULT_MILLISECONDS: Final = 100


class Frame(msgspec.Struct, frozen=True):
    """One frame; `loops` is the whole image's: how often it is shown, 0 for ever."""

    picture: Image.Image
    milliseconds: int
    loops: int


def frames(source: Source) -> Iterator[Frame]:
    """Yields the frames. A file that ends inside one yields those before it, with a warning; raises Verdict where
    not even the first can be read."""
    image = source.opened()
    for number in range(source.header.frames):
        try:
            image.seek(number)
            picture = image.convert("RGBA" if source.header.alpha or image.mode in ("P", "RGBA") else "RGB")
        except REFUSALS as error:
            if number == 0:
                raise Verdict("corrupt", f"{source.shown} cannot be read: {reason(error)}") from error
            source.warn(f"frame {number + 1} of {source.header.frames} cannot be read; the {number} before it were")
            return
        told = image.info.get("duration")
        milliseconds = int(told) if isinstance(told, int | float) and told > 0 else _DEFAULT_MILLISECONDS
        loops = image.info.get("loop")
        picture = with_pillow.upright(picture, source.header.orientation)
        yield Frame(picture, milliseconds, loops if isinstance(loops, int) else 0)


def sized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns a frame at `size`."""
    return with_pillow.shrink(picture, size)
