"""Which part of a picture is kept when it is to fill a frame of other proportions."""

from typing import Literal

from PIL import Image

from workers.images import with_vips

Crop = Literal["none", "centre", "attention", "entropy"]
"""`attention`: where skin, saturated colours and edges are; `entropy`: where most happens (both libvips's)."""


def cropped(picture: Image.Image, size: tuple[int, int], crop: Crop) -> Image.Image:
    """Returns the part of `size` pixels; never larger than the picture."""
    width, height = min(size[0], picture.width), min(size[1], picture.height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    if crop in ("attention", "entropy"):
        left, top = with_vips.interesting(picture, (width, height), crop)
    return picture.crop((left, top, left + width, top + height))
