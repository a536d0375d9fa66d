"""Libraries that print: libtiff writes a line to standard error for every odd tag of a broken file.

Pillow leaves libtiff's handlers as they are, so one hostile TIFF puts hundreds of lines between a user and
the progress bar. What is wrong with a file is said by the decoder's own error, which becomes its verdict.
"""

import ctypes


def silence_libtiff() -> bool:
    """Takes libtiff's printing handlers away; tells whether the libtiff that Pillow is linked to was found."""
    from PIL import _imaging

    try:
        library = ctypes.CDLL(_imaging.__file__)  # symbols of what it is linked to are found through it
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.restype = ctypes.c_void_p
            setter(None)
    except (OSError, AttributeError):
        return False  # linked in statically, or built without
    return True
