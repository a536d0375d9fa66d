"""What decoding takes, from the header alone: which decoder, and how many bytes above the worker's baseline.

The figures are upper bounds by construction of the decoders, with constants fitted to the measured peaks
(VmHWM) of some 250 real and made images; predictions are meant to lie within once and twice the measured
peak. Predicting too little is the sin: the supervisor would admit what does not fit.
"""

import math
from typing import Final, Literal

from workers.images import formats
from workers.images.header import Header
from workers.images.with_vips import WEBP_LEFT, needs_colour

Engine = Literal["pillow", "vips"]

SMALL_PIXELS: Final = 400_000
"""Below it Pillow is faster (libvips takes some 2 ms to build its pipeline); measured equal at 0.3 to 0.5 MP."""
DRAFTED_PIXELS: Final = 4_000_000
"""What is left of a JPEG that shrinks while it is decoded: up to here Pillow is a tenth to a fifth faster, as it need
not start a pipeline; above it would hold more than 16 MB for it."""
SHRINK_LEFT: Final = 2.0
"""How much is left to the resize after a JPEG decoder shrank. Measured against a full decode resized by Lanczos: the
decoder's own shrinking costs 8 dB when nothing is left, 2 dB at 1.5; Pillow's thumbnail leaves 2 as well."""
EIGHTH_LEFT: Final = 1.95
"""The same of a progressive JPEG that may be shrunk by eight: from its first coefficients alone (`images.progressive`)
a photo of 12 megapixels, 4,000 or 4,032 pixels wide, takes a fifth of the time to 256. On 35 photos of cameras: 48 dB
on average, Pillow's thumbnail 46, and where that was nearer (5 of them) by 1.1 dB at most."""
WEBP_STREAM_PIXELS: Final = 1_000_000
"""Above it libvips: it lets the WebP decoder scale, Pillow holds the image four times at full size (measured 16
bytes a pixel) and takes a tenth longer."""
PLAIN_TIFF_PIXELS: Final = 13_000_000
"""Up to here Pillow reads TIFFs of 8 bits in a tenth to a fifth less time than libvips; it holds them whole. Both
notice the same damage (measured: 300 files of LZW and deflate with three bytes changed)."""
LEFT_BY_BOX: Final = 1.9
"""What a box leaves to Lanczos, much as Pillow's `thumbnail` does (2): 52 dB from the whole picture resized by Lanczos
as with 2, and boxes of four from 1,950 pixels to 256. 3 is 1 dB nearer and half as fast."""
BOX_PAYS: Final = 3
"""From there on Pillow's box and Lanczos are faster than libvips (3.1 and 3.4 ms from 1,600 to 256 pixels, 4.2 and 7.2
from 2,600) and nearer (52 and 48 dB)."""
_EVEN_BOX_LEAST: Final = 0.5
"""How much smaller a box may be that divides a picture evenly, so that libvips can do the rest: Lanczos by libvips
takes a quarter of Pillow's time (3.6 and 2.2 ms with the box from 2,000 to 256 pixels), and more left to it is nearer
(1,600 pixels by 2: 3.5 ms and 50.5 dB; by 3, Lanczos by Pillow: 3.7 ms and 47.4 dB)."""
PACKED_PIXELS: Final = 14_000_000
"""A larger picture is not packed beside itself for libvips where a box of two will do: 20 megapixels took 205 MB."""
_AV1_REFERENCE: Final = 1.05
_AVIF_BYTES: Final = 6.6
_AVIF_UNPACKED_BYTES: Final = 7.5
"""Bytes a pixel in an AVIF beside its planes (1.5 to 6): while they are made and handed out; while that is unpacked.
Measured at 3 to 48 megapixels: 7.9 to 12.6, and 9.0 to 13.9."""
_AVIF_BASE_BYTES: Final = 10_000_000
_WEBP_BYTES: Final = 6.5
"""Bytes a pixel that libwebp hands out: its RGBA and what libvips makes of it (at 3 and 48 megapixels: 5.9, 6.4)."""
_MOST_ROWS: Final = 2_200
"""How many rows libvips has in flight at most, however strongly it shrinks (measured: 550 to 2,000 on PNG and TIFF of 6
to 280 megapixels, shrunk by 1.5 to 110)."""
_PILLOW_BYTES: Final = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}
_PILLOW_KNOWS: Final = ("I", "F", "LAB")
"""libvips shows samples of 32 bits as if they went from 0 to 255, and refuses half the TIFFs in L*a*b*."""
_BASE_BYTES: Final = 4_000_000
"""The file is read by the megabyte, and joined to what is left of the one before."""
_SLACK: Final = 1.1
"""Pillow's storage comes in whole pages, and rows are padded."""
_VIPS_BASE_BYTES: Final = 4_000_000
WARM_UP_BYTES: Final = 11_000_000
"""What libvips's first image in a process adds: its thread, its tables, its code paged in. They stay, and are part of
the warm worker's baseline from then on."""
RESOLUTION_BYTES: Final = 4_000_000
"""What one item takes can be told no finer: it may find room in memory that the worker holds already. The allocators
keep what was freed in pieces below 128 KB (up to some MB), Python takes memory by the megabyte, and the kernel's
counter of resident pages lags by up to 64 pages a thread. No prediction is below it."""


def target_of(header: Header, side: int) -> tuple[int, int]:
    """Returns the size to decode to (as stored) so that the longest side has `side` pixels; never enlarged."""
    longest = max(header.width, header.height)
    if side >= longest:
        return header.width, header.height
    return max(1, round(header.width * side / longest)), max(1, round(header.height * side / longest))


def draft_scale(header: Header, target: tuple[int, int]) -> int:
    """Returns by how much a JPEG decoder may shrink while it decodes (1, 2, 4, 8)."""
    if header.format is not formats.JPEG:
        return 1
    room = min(header.width / target[0], header.height / target[1])
    if header.progressive and room >= 8 * EIGHTH_LEFT:
        return 8
    return next(scale for scale in (8, 4, 2, 1) if room >= scale * SHRINK_LEFT or scale == 1)


def box_factor(wide: float, high: float, size: tuple[int, int]) -> int:
    """Returns how many pixels each way the box before Lanczos takes together; below 2 there is none."""
    return int(min(wide / size[0], high / size[1]) / LEFT_BY_BOX)


def even_box(width: int, height: int, factor: int) -> int | None:
    """Returns the largest box, up to `factor` and not much below, that leaves no part of a box at an edge; None where
    there is none. libvips would centre what the part stands for, and be off by a fraction of a pixel: 5 dB."""
    least = max(2, math.ceil(factor * _EVEN_BOX_LEAST))
    return next((box for box in range(factor, least - 1, -1) if width % box == 0 and height % box == 0), None)


def is_packed(factor: int, pixels: int) -> bool:
    """Tells whether a picture in Pillow's memory is packed beside itself and resized by libvips: time for memory."""
    return factor < BOX_PAYS and (factor == 1 or pixels <= PACKED_PIXELS)


def shrinks_in_strips(header: Header, target: tuple[int, int]) -> bool:
    """Tells whether an AVIF is shrunk from what its decoder hands out, never unpacked as a whole."""
    factor = box_factor(header.width, header.height, target)
    plain = header.format is formats.AVIF and header.mode == "RGB" and header.icc != "other"
    return plain and factor > 1 and not is_packed(factor, header.pixels)


def choose(header: Header, target: tuple[int, int]) -> Engine:
    """Returns the decoder that measured better for such an image."""
    if header.reader == "vips":
        return "vips"
    if not header.format.vips or header.format is formats.GIF:
        return "pillow"
    if header.format in (formats.AVIF, formats.HEIF):
        return "pillow"  # half of libvips's memory, and faster
    if header.mode in _PILLOW_KNOWS:
        return "pillow"
    if needs_colour(header) or header.bits > 8:
        return "vips"  # Pillow loses bits or colours
    if header.format is formats.TIFF:
        plain = header.mode in ("L", "RGB") and header.orientation == 1
        return "pillow" if plain and header.pixels <= PLAIN_TIFF_PIXELS else "vips"
    if header.format is formats.WEBP:
        return "vips" if header.pixels > WEBP_STREAM_PIXELS else "pillow"
    scale = draft_scale(header, target)
    if scale > 1:
        return "vips" if header.pixels // scale**2 > DRAFTED_PIXELS else "pillow"
    return "vips" if header.pixels > SMALL_PIXELS else "pillow"


def decode_bytes(header: Header, target: tuple[int, int], engine: Engine) -> int:
    """Returns the predicted peak of decoding `header` to `target` with `engine`, the result included."""
    result = target[0] * target[1] * 4
    held = _held_by_decoder(header, engine, target[0] * target[1])
    if engine == "vips":
        held += 1_000_000 + result if needs_colour(header) else 0
        held += 3_000_000 + header.inside_bytes if header.format is formats.SVG else 0
        held += header.drawing.inside_bytes(header.drawing.fitted(target) or target) if header.drawing else 0
        held += result if header.alpha else 0  # multiplied with its opacity, and divided again
        return _VIPS_BASE_BYTES + held + _vips_bytes(header, target) + 2 * result
    if header.format is formats.AVIF and header.mode == "RGB" and header.icc != "other":
        each = header.plane_bytes * _AV1_REFERENCE + _AVIF_BYTES
        if not shrinks_in_strips(header, target):
            each = max(each, header.plane_bytes + _AVIF_UNPACKED_BYTES)
        return _AVIF_BASE_BYTES + int(header.pixels * each) + result
    scale = draft_scale(header, target)
    pixels = header.pixels // scale**2
    unpacked = int(pixels * _PILLOW_BYTES.get(header.mode, 4) * _SLACK)
    plain = header.mode == "RGBA" or (header.mode in ("L", "RGB") and not header.alpha)
    converted = 0 if plain and header.icc != "other" else pixels * 4
    # The resize by libvips is handed the packed pixels beside Pillow's own, and hands out packed ones.
    reduced = (pixels + target[0] * target[1]) * min(3, header.bands) if pixels > target[0] * target[1] else 0
    reduced = max(reduced, target[0] * (header.height // scale) * 4)
    return _BASE_BYTES + held + unpacked + converted + reduced + result


def _held_by_decoder(header: Header, engine: Engine, pixels: int) -> int:
    """What the codec itself keeps of the whole image, whoever calls it; `pixels` are those of the result."""
    if header.format is formats.JPEG:
        mapped = header.file_bytes if engine == "vips" or header.progressive else 0
        return mapped + (int(header.pixels * header.plane_bytes) if header.progressive else 0)
    if header.format is formats.PNG and header.progressive:
        return header.pixels * header.bands * (header.bits // 8 or 1)
    if header.format is formats.AVIF:
        return int(header.pixels * (4.5 + header.plane_bytes))  # the planes and the decoder's reference copies
    if header.format is formats.HEIF:
        return header.pixels * 6  # the same
    if header.format is formats.WEBP:
        shrink = max(1, int((header.pixels / pixels) ** 0.5 / WEBP_LEFT))  # by whole numbers: up to 3.8 times by one
        whole = int(header.pixels / shrink**2 * _WEBP_BYTES)
        lossless = int(header.pixels * header.plane_bytes) if shrink > 1 else 0  # decoded whole before it is scaled
        return header.pixels * 9 if engine == "pillow" else header.file_bytes + lossless + whole
    if header.format is formats.JPEG2000:
        return header.pixels * header.bands * 4 + header.file_bytes + 2_000_000  # 32 bits a sample
    if header.format is formats.GIF:
        return header.pixels * 4
    if header.format is formats.BMP and header.mode == "P":
        return header.pixels * 2  # a packed one is unpacked in Python, and copied
    if header.format is formats.ICO:
        return header.pixels * 8 + 4_000_000
    if header.format.pillow in formats.RARE:
        return header.pixels * 4  # readers in Python, and the lenient second try beside the first
    return 0


def _vips_bytes(header: Header, target: tuple[int, int]) -> int:
    """Rows in flight: libvips works in strips of 16 output rows, each of `shrink` input rows, some times over."""
    scale = draft_scale(header, target)
    width, height = header.width // scale, header.height // scale
    shrink = max(1.0, height / target[1])
    sample = 2 if header.bits > 8 else 1
    row = width * max(header.bands, (4 if header.alpha else 3) if header.mode == "P" else 1) * sample
    rows = min(height, int(2 * 128 * shrink) + 512, _MOST_ROWS)
    return int(row * rows)
