"""PNM as Pillow does not read it, or only a sample at a time: PAM (P7), plain text (P1 to P3), and odd depths (P5, P6).

A sample is scaled by a table, a block at a time: 50 megapixels of 16 bits take two seconds, where Pillow's own loop
takes a minute. What Pillow's decoders in C read (255, and 65,535 for grey) is left to them. Samples keep their upper
eight bits. netpbm.sourceforge.net/doc, pnm(5) and pam(5).
"""

import array
import re
import sys
from collections.abc import Iterator
from typing import IO, Any, Final

from PIL import Image, ImageFile

NAME: Final = "PNM"
_MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_BLOCK_BYTES: Final = 1 << 18
_MOST_LINES: Final = 200
_LINE_BYTES: Final = 1 << 16
_COMMENT: Final = re.compile(rb"#[^\r\n]*")
_DEPTHS: Final = {b"P1": 1, b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3}
_LARGEST: Final = 65_535
_DIGITS: Final = 5
_SPACES: Final = b" \t\r\n\v\f"
_INK: Final = bytes.maketrans(b"01", b"\xff\0")
_BYTE: Final = 255


class PnmImage(ImageFile.ImageFile):
    """A PNM whose header was read; Pillow's protocol."""

    format = "PPM"
    format_description = "Portable anymap"

    def _open(self) -> None:
        assert self.fp is not None
        magic = self.fp.read(2)
        if magic == b"P7":
            width, height, depth, most = _pam(self.fp)
        elif magic in _DEPTHS:
            width, height, most = [*_numbers(self.fp, 2 if magic == b"P1" else 3), 1][:3]
            depth = _DEPTHS[magic]
            if magic in (b"P5", b"P6") and (most == _BYTE or (depth, most) == (1, _LARGEST)):
                raise SyntaxError("Pillow's own")
        else:
            raise SyntaxError("not one of these")
        if depth not in _MODES or not 0 < most <= _LARGEST:
            raise ValueError(f"{depth} samples a pixel, up to {most}")
        self._size, self._mode = (width, height), _MODES[depth]
        plain = magic in (b"P1", b"P2", b"P3")
        self.tile = [ImageFile._Tile(NAME, (0, 0, width, height), self.fp.tell(), (plain, most, magic == b"P1"))]


def _numbers(file: IO[bytes], count: int) -> list[int]:
    """The numbers of a header, with comments anywhere between them; the file is left behind the byte after the last."""
    found: list[int] = []
    token = b""
    for _ in range(_LINE_BYTES):
        byte = file.read(1)
        if byte == b"#":
            file.readline(_LINE_BYTES)
            byte = b"\n"
        if byte.isdigit():
            token += byte
            continue
        if token:
            found.append(int(token))
            token = b""
        if len(found) == count or not byte.isspace():
            break
    if len(found) < count:
        raise ValueError("a header that ends too early")
    return found


def _pam(file: IO[bytes]) -> tuple[int, int, int, int]:
    told: dict[bytes, int] = {}
    for _ in range(_MOST_LINES):
        line = file.readline(_LINE_BYTES)
        words = line.split(None, 1)
        if words[:1] == [b"ENDHDR"]:
            return told[b"WIDTH"], told[b"HEIGHT"], told[b"DEPTH"], told[b"MAXVAL"]
        if not line:
            break
        if len(words) == 2 and words[0] in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"):
            told[words[0]] = int(words[1])
    raise ValueError("a header without its end")


class _Decoder(ImageFile.PyDecoder):
    """Fills the image by bands of rows."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Reads all of it; raises ValueError where the file ends too early, unless Pillow was told to be lenient."""
        assert self.fd is not None
        plain, most, bits = self.args
        wide, high = self.state.xsize, self.state.ysize
        row = wide * len(Image.getmodebands(self.mode) * "b")
        ready, at = bytearray(), 0
        for block in _plain(self.fd, most, bits) if plain else _packed(self.fd, most, row * high):
            ready += block
            if rows := min(len(ready) // row, high - at):
                self._put(bytes(ready[: rows * row]), at, rows)
                del ready[: rows * row]
                at += rows
            if at == high:
                return -1, 0
        if not ImageFile.LOAD_TRUNCATED_IMAGES:
            raise OSError(f"image file is truncated: {at} of {high} rows are there")
        return -1, 0

    def _put(self, samples: bytes, at: int, rows: int) -> None:
        wide = self.state.xsize
        assert self.im is not None
        self.im.paste(Image.frombytes(self.mode, (wide, rows), samples).im, (0, at, wide, at + rows))


def _table(most: int) -> bytes:
    return bytes(round(sample * _BYTE / most) for sample in range(most + 1))


def _packed(file: IO[bytes], most: int, count: int) -> Iterator[bytes]:
    """The samples of a binary file at eight bits, by blocks."""
    table = _table(most)
    table += bytes([_BYTE]) * ((256 if most <= _BYTE else _LARGEST + 1) - len(table))
    while count > 0 and (block := file.read(min(_BLOCK_BYTES, count * (1 if most <= _BYTE else 2)))):
        if most <= _BYTE:
            made = block.translate(table)
        elif most == _LARGEST:
            made = block[: len(block) // 2 * 2 : 2]
        else:
            samples = array.array("H", block[: len(block) // 2 * 2])
            if sys.byteorder == "little":
                samples.byteswap()
            made = bytes(map(table.__getitem__, samples))
        count -= len(made)
        yield made


class _Eighths(dict[bytes, int]):
    """From a sample as it is written to its eight bits; each way of writing one is worked out once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._table = _table(most)

    def __missing__(self, written: bytes) -> int:
        sample = int(written)
        if not 0 <= sample < len(self._table):
            raise ValueError(f"a sample above {len(self._table) - 1}")
        if len(written) <= _DIGITS:
            self[written] = self._table[sample]
        return self._table[sample]


def _plain(file: IO[bytes], most: int, bits: bool) -> Iterator[bytes]:
    """The samples of a text file at eight bits, by blocks; of P1 a digit each, 1 for black."""
    found = _Eighths(most)
    for block in _texts(file):
        if not bits:
            yield bytes(map(found.__getitem__, block.split()))
        elif (digits := block.translate(None, _SPACES)).strip(b"01"):
            raise ValueError("a sample that is neither 0 nor 1")
        else:
            yield digits.translate(_INK)


def _texts(file: IO[bytes]) -> Iterator[bytes]:
    """A text by blocks that end between two words, without its comments."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        block = rest + block
        if b"#" in block:
            comment = block.rfind(b"#")
            open_still = b"\n" not in block[comment:] and b"\r" not in block[comment:]
            block = _COMMENT.sub(b" ", block) + (b" #" if open_still else b"")
        end = max(block.rfind(space) for space in (b" ", b"\n", b"\t", b"\r")) + 1
        if not end and len(block) > _LINE_BYTES:
            end = len(block)  # P1 needs no spaces; a number of so many digits is none
        yield block[:end]
        rest = block[end:]
    if rest and not rest.startswith(b"#"):
        yield rest


def register() -> None:
    """Makes Pillow read them, as the format NAME."""
    Image.register_open(NAME, PnmImage, lambda prefix: prefix[:1] == b"P")
    Image.register_decoder(NAME, _Decoder)
