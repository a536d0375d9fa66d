"""Reading images: what the file is (`formats`, `exif`, `header`), what it would take (`cost`), its pixels.

Two decoders, chosen by measurement (`cost.choose`): Pillow where the image is small or held whole anyway,
libvips where it streams or has colours to convert. Whoever decodes, the result is a Pillow image of 8 bits
in sRGB, upright, so that an operation meets one kind of picture. `source` joins them: opened once, decoded
once for all steps.
"""
