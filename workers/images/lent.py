"""A picture's pixels where they lie: Pillow lends them by Arrow's C data interface, nothing is copied.

Pillow keeps RGB in four bytes a pixel. To pack them into three for another library takes as long as resizing them, and
twice the packed size for a moment. The interface is C structures of a fixed layout, handed over in capsules; the one
pointer needed is read out of them here. Pillow lends what lies in one block of its memory: its blocks of 16 MB would
end that at 4 megapixels, so that they are made larger (one is as large as its picture needs). An older Pillow lends
nothing.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import msgspec
from PIL import Image

_CAPSULE: Final = b"arrow_array"
_BUFFERS: Final = 2
"""Which of them are valid, and the values."""
_BLOCK_BYTES: Final = 1 << 30
_BANDS: Final = {"L": 1, "RGB": 4}
_RAW: Final = {"L": "L", "RGB": "RGBX"}


class _Array(ctypes.Structure):
    """struct ArrowArray of the Arrow specification, "The Arrow C data interface"."""


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

Image.core.set_block_size(_BLOCK_BYTES)  # type: ignore[attr-defined]
_pointer: Callable[[Any, bytes], int] = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p  # type: ignore[attr-defined]
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]  # type: ignore[attr-defined]


class Lent(msgspec.Struct, frozen=True):
    """The pixels of a picture, row after row without gaps. Only to be read, and only while `lender` is held."""

    pixels: memoryview
    bands: int
    raw: str
    """What Pillow calls this layout: L, RGBX."""
    lender: object


def lent(picture: Image.Image) -> Lent | None:
    """Returns the pixels of a picture of mode L or RGB, None of what is not lent."""
    picture.load()
    bands = _BANDS[picture.mode]
    size = picture.width * picture.height * bands
    try:
        lender = picture.__arrow_c_array__()[1]
    except (AttributeError, ValueError):
        return None
    array = _Array.from_address(_pointer(lender, _CAPSULE))
    values = array.children[0].contents if array.n_children else array
    if values.length != size or values.offset or values.n_buffers != _BUFFERS:
        return None
    pixels = memoryview((ctypes.c_ubyte * size).from_address(values.buffers[1])).cast("B")
    return Lent(pixels, bands, _RAW[picture.mode], lender)
