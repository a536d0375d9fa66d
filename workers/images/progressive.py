"""The part of a progressive JPEG that an eighth of its size needs.

Such a file tells its coefficients in several scans. What a decoder makes of each 8 x 8 block when it shrinks by eight
is its first coefficient alone (the DC, ITU-T T.81, annex G), so that the scans of the 63 others can be left out: the
pixels are the same, in a fifth to an eighth of the time, for nearly all of that is spent on the others. Components with
fewer samples (colours, mostly) keep theirs: the decoder shrinks them by less, in place of stretching them.

In place of what is left out stands one empty scan. Without it a decoder believes the file to be half loaded, and
smooths between the blocks.
"""

import re
from collections.abc import Iterator
from struct import error as StructError
from struct import pack, unpack_from
from typing import Final

import msgspec

_SOF2, _DHT, _EOI, _SOS = 0xC2, 0xC4, 0xD9, 0xDA
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Within a scan: neither a stuffed byte nor a restart marker nor filling."""
_MOST_SCANS: Final = 1_000
_LONGEST_RUN: Final = 32_767
_RUN_BITS: Final = 14
_TABLE: Final = b"\xff\xc4" + pack(">HB16BB", 20, 0x10, 1, *([0] * 15), _RUN_BITS << 4)
"""An AC table of one code, "0": a run of 16,384 to 32,767 empty blocks, how many of them in the 14 bits behind it."""


class _Component(msgspec.Struct, frozen=True):
    name: int
    across: int
    down: int


class _Frame(msgspec.Struct, frozen=True):
    width: int
    height: int
    components: tuple[_Component, ...]

    @property
    def largest(self) -> list[int]:
        """The names of the components with most samples."""
        most = max(each.across for each in self.components), max(each.down for each in self.components)
        return [each.name for each in self.components if (each.across, each.down) == most]

    @property
    def blocks(self) -> int:
        """How many blocks of 8 x 8 a scan of one of these alone holds (T.81, A.2.2)."""
        return -(-self.width // 8) * -(-self.height // 8)


def for_an_eighth(content: bytes) -> bytes | None:
    """Returns the JPEG with its first coefficients alone; None where it is not whole or not as it is usually made."""
    try:
        frame, kept = _kept(content)
    except (StructError, IndexError, ValueError, ZeroDivisionError):
        return None
    empty = [_TABLE]
    for name in frame.largest:
        empty += [b"\xff\xda", pack(">HBBBBBB", 8, 1, name, 0, 1, 63, 0), _run(frame.blocks)]
    return b"".join((*kept, *empty, b"\xff\xd9"))


def _kept(content: bytes) -> tuple[_Frame, list[bytes | memoryview]]:
    """The frame, and the pieces up to the end without the scans of other coefficients. Raises ValueError."""
    view, frame = memoryview(content), None
    kept: list[bytes | memoryview] = [view[:2]]
    told = False
    for marker, start, end in _segments(content):
        if marker == _SOF2:
            height, width, count = unpack_from(">HHB", content, start + 5)
            parts = [unpack_from("BB", content, start + 10 + 3 * at) for at in range(count)]
            frame = _Frame(width, height, tuple(_Component(name, sides >> 4, sides & 15) for name, sides in parts))
        elif marker == _EOI:
            if frame is None or not told or not frame.width or not frame.height:
                break
            return frame, kept
        elif marker == _SOS:
            count = content[start + 4]
            if content[start + 5 + 2 * count]:
                if frame is None or count != 1:
                    break
                if content[start + 5] in frame.largest:
                    continue
            else:
                told = True
        kept.append(view[start:end])
    raise ValueError("no whole progressive JPEG")


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Each segment as its marker, start and end; that of a scan with the scan itself. Raises ValueError."""
    at, scans = 2, 0
    while True:
        if content[at] != 0xFF:
            raise ValueError("no marker")
        marker = content[at + 1]
        if marker == _EOI:
            yield marker, at, at + 2
            return
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            raise ValueError("a marker that does not stand alone")
        end = at + 2 + unpack_from(">H", content, at + 2)[0]
        if marker == _SOS:
            scans += 1
            found = _NEXT_MARKER.search(content, end)
            if found is None or scans > _MOST_SCANS:
                raise ValueError("the scan does not end")
            end = found.start()
        yield marker, at, end
        at = end


def _run(blocks: int) -> bytes:
    """The bits of a scan of so many empty blocks; the last run may reach beyond the end."""
    runs = -(-blocks // _LONGEST_RUN)
    bits = ("0" + "1" * _RUN_BITS) * runs
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
