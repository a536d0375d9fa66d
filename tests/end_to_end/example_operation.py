"""An operation of one's own: sepia tones. All that an author writes; see the README for how it is installed."""

import io

from PIL import Image, ImageOps

from workers.operations import Operation, Parameters, Work


class Sepia(Parameters, frozen=True, kw_only=True):
    """`size`: longest side in pixels; `quality`: of the JPEG, 1 to 100."""

    size: int = 512
    quality: int = 85


def run(work: Work, parameters: Sepia) -> dict[str, object]:
    image = work.source.decoded(parameters.size).convert("L")
    image.thumbnail((parameters.size, parameters.size))
    toned = ImageOps.colorize(image, "#2b1a0b", "#fff3df")
    toned.save(encoded := io.BytesIO(), "JPEG", quality=parameters.quality)
    work.publish("sepia", "sepia", "jpg", toned, encoded.getvalue())
    return {"brightness": image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))}


SEPIA = Operation(
    name="sepia", version=1, reads="pixels", run=run, parameters=Sepia, writes=lambda parameters: ["sepia.jpg"],
    side=lambda header, parameters: parameters.size, beside=lambda header, parameters: 6 * parameters.size**2,
)  # fmt: skip
