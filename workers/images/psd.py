"""Photoshop files that Pillow refuses: 16 and 32 bits a sample, large documents (PSB), and bitmaps, which it inverts.

What is read is the picture that Photoshop stores beside the layers, all layers merged. It lies there plane by plane,
each sample with its most significant byte first: the upper eight bits are every second byte. 32 bits are linear light
from 0 to 1. Adobe Photoshop File Formats Specification, "Image Data".
"""

import struct
from collections.abc import Iterator
from typing import IO, Any, Final

from PIL import Image, ImageChops, ImageFile, ImagePalette

NAME: Final = "PSD-DEEP"
_BITMAP, _GREY, _INDEXED, _RGB, _CMYK, _CHANNELS, _DUOTONE, _LAB = 0, 1, 2, 3, 4, 7, 8, 9
_KINDS: Final = {
    _BITMAP: "L", _GREY: "L", _INDEXED: "P", _RGB: "RGB", _CMYK: "CMYK", _CHANNELS: "L", _DUOTONE: "L", _LAB: "LAB",
}  # fmt: skip
_DEPTHS: Final = (1, 8, 16, 32)
_ICC, _EXIF, _XMP = 1039, 1058, 1060
_INFO: Final = {_ICC: "icc_profile", _EXIF: "exif", _XMP: "xmp"}
_MOST_RESOURCES: Final = 1_000
_MOST_CHANNELS: Final = 56
_SECTION_BYTES: Final = 64 * 1024 * 1024
_BAND_BYTES: Final = 1 << 20
_RAW, _PACKED = 0, 1
_DEEP_LAYERS: Final = (b"8BIMLr16", b"8BIMLr32")
_LOOKED_AT_BYTES: Final = 4_096


class PsdImage(ImageFile.ImageFile):
    """A Photoshop file whose header was read; Pillow's protocol."""

    format = "PSD"
    format_description = "Adobe Photoshop, deep or large"

    def _open(self) -> None:
        assert self.fp is not None
        mark, version, channels, height, width, bits, kind = struct.unpack(">4sH6xHIIHH", self.fp.read(26))
        if mark != b"8BPS" or (version == 1 and bits == 8):
            raise SyntaxError("Pillow's own")
        if version not in (1, 2) or bits not in _DEPTHS or kind not in _KINDS or (bits == 1) != (kind == _BITMAP):
            raise ValueError(f"a PSD of version {version}, kind {kind}, {bits} bits")
        mode = _KINDS[kind]
        palette = self._section()
        if mode == "P" and len(palette) == 768:
            self.palette = ImagePalette.raw("RGB;L", palette)
        self._resources(self._section())
        merged_alpha = self._skip_layers(version)
        if not len(Image.getmodebandnames(mode)) <= channels <= _MOST_CHANNELS:
            raise ValueError(f"a PSD of {channels} channels")
        if mode == "RGB" and channels > 3 and merged_alpha:
            mode = "RGBA"
        self._size, self._mode = (width, height), mode
        self.tile = [ImageFile._Tile(NAME, (0, 0, width, height), self.fp.tell(), (bits, version, channels))]

    def _section(self) -> bytes:
        assert self.fp is not None
        length = struct.unpack(">I", self.fp.read(4))[0]
        if length > _SECTION_BYTES:
            raise ValueError(f"a section of {length:,} bytes")
        return ImageFile._safe_read(self.fp, length)

    def _resources(self, block: bytes) -> None:
        at = 0
        for _ in range(_MOST_RESOURCES):
            if at + 12 > len(block):
                return
            number, name_bytes = struct.unpack_from(">HB", block, at + 4)
            at += 6 + (name_bytes + 2 & ~1)
            length = struct.unpack_from(">I", block, at)[0]
            if number in _INFO:
                self.info[_INFO[number]] = block[at + 4 : at + 4 + length]
            at += 4 + (length + 1 & ~1)

    def _skip_layers(self, version: int) -> bool:
        """Goes past the layers; tells whether the first channel beyond the colours is the merged transparency: then
        the number of layers is negative. Else it is a selection that somebody saved."""
        assert self.fp is not None
        form, room = (">Q", 8) if version == 2 else (">I", 4)
        length = struct.unpack(form, self.fp.read(room))[0]
        start = self.fp.tell()
        head = self.fp.read(min(length, _LOOKED_AT_BYTES))
        self.fp.seek(start + length)
        if len(head) < room + 2:
            return False
        places = [room] if struct.unpack_from(form, head)[0] else []
        places += [head.find(mark) + 8 + room for mark in _DEEP_LAYERS if mark in head]
        return any(at + 2 <= len(head) and struct.unpack_from(">h", head, at)[0] < 0 for at in places)


class _Decoder(ImageFile.PyDecoder):
    """Fills the image plane by plane."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Reads all planes; raises OSError where the file ends too early, unless Pillow was told to be lenient."""
        assert self.fd is not None and self.im is not None
        bits, version, channels = self.args
        size = self.state.xsize, self.state.ysize
        row = (size[0] * bits + 7) // 8
        packing = struct.unpack(">H", self.fd.read(2))[0]
        if packing not in (_RAW, _PACKED):
            raise ValueError(f"a PSD whose picture is packed by method {packing}")
        lengths = _lengths(self.fd, channels * size[1], version) if packing == _PACKED else None
        names = Image.getmodebandnames(self.mode)
        for number in range(len(names)):
            own = lengths[number * size[1] : (number + 1) * size[1]] if lengths is not None else None
            plane = Image.new("P" if self.mode == "P" else "L", size)
            at = 0
            for rows, samples in _bands(self.fd, size[1], row, own):
                plane.im.paste(_eight_bits(samples, (size[0], rows), bits, plane.mode).im, (0, at, size[0], at + rows))
                at += rows
            if at < size[1] and not ImageFile.LOAD_TRUNCATED_IMAGES:
                raise OSError(f"image file is truncated: {at} of {size[1]} rows of plane {number + 1}")
            if len(names) == 1:
                self.im.paste(plane.im, (0, 0, *size))
            else:
                self.im.putband((ImageChops.invert(plane) if self.mode == "CMYK" else plane).im, number)
        return -1, 0


def _lengths(file: IO[bytes], count: int, version: int) -> list[int]:
    form, room = ("I", 4) if version == 2 else ("H", 2)
    return list(struct.unpack(f">{count}{form}", ImageFile._safe_read(file, count * room)))


def _bands(file: IO[bytes], high: int, row: int, lengths: list[int] | None) -> Iterator[tuple[int, bytes]]:
    """Some rows of a plane at a time, unpacked; fewer than `high` where the file ends."""
    most = max(1, _BAND_BYTES // max(1, row))
    for at in range(0, high, most):
        rows = min(most, high - at)
        wanted = rows * row if lengths is None else sum(lengths[at : at + rows])
        if wanted > rows * (2 * row + 16):
            raise ValueError("packed rows that are longer than packing can make them")
        found = file.read(wanted)
        if len(found) < wanted:
            return
        if lengths is not None:
            found = Image.frombytes("L", (row, rows), found, "packbits", "L").tobytes()
        yield rows, found


def _eight_bits(samples: bytes, size: tuple[int, int], bits: int, mode: str) -> Image.Image:
    if bits == 1:
        return Image.frombytes("1", size, samples, "raw", "1;I").convert("L")
    if bits == 32:
        light = Image.frombytes("F", size, samples, "raw", "F;32BF")
        return light.point(lambda value: value * 65535 + 0.5).convert("I").point(_gamma(), "L")
    return Image.frombytes(mode, size, samples[::2] if bits == 16 else samples)


def _gamma() -> list[int]:
    """Linear light to sRGB (IEC 61966-2-1), from 16 bits to 8."""
    shown = []
    for step in range(65536):
        value = step / 65535
        shown.append(round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)))
    return shown


def register() -> None:
    """Makes Pillow read them, as the format NAME."""
    Image.register_open(NAME, PsdImage, lambda prefix: prefix.startswith(b"8BPS"))
    Image.register_decoder(NAME, _Decoder)
