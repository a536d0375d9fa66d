"""The one place that knows how HEIF and AVIF are decoded: by Pillow's plugins, loaded by the first such file.

What phones call HEIC is HEVC, which the libvips of `pyvips-binary` does not decode (it has AV1 alone). `pi-heif`
is the plugin without encoders: 4 MB in a process that meets such a file, nothing in the others. `pillow-heif`,
the same code with an encoder beside it, is taken where that is installed instead.
"""

import functools
from importlib import import_module

MISSING = "the decoder for HEIC is not installed: pip install pi-heif"
_AVIF = "PIL.AvifImagePlugin"
_AVIF_THREADS = "DEFAULT_MAX_THREADS"
_PLUGINS = ("pi_heif", "pillow_heif")


@functools.cache
def register() -> bool:
    """Makes Pillow read HEIF; tells whether there is a plugin that does."""
    for name in _PLUGINS:
        try:
            plugin = import_module(name)
        except ImportError:
            continue
        # One thread: the pool is the parallelism. What lies beside the picture is not read.
        plugin.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
        return True
    return False


@functools.cache
def restrain_avif() -> None:
    """Makes Pillow's AVIF decoder use one thread: it would take one for each core."""
    setattr(import_module(_AVIF), _AVIF_THREADS, 1)
