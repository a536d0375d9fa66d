"""The work of the pressure benchmark as the peers do it: two thumbnails with Pillow, as its manual shows.

A verdict is a line in a file that all processes append to: it stands, whatever becomes of the process that wrote it.
No limit of Pillow is changed, so that it refuses decompression bombs as it does for everybody.
"""

import os
from collections.abc import Iterator

SIZES = (256, 1024)


def thumbnails(path: str, out: str, verdicts: str) -> None:
    """Makes the thumbnails of one file and writes down what became of it. Raises OSError where that cannot be done."""
    try:
        _make(path, out)
        verdict = "done"
    except Exception as error:
        # Whatever a decoder raises is an answer; Pillow's refusal of a bomb is an Exception of its own.
        verdict = f"failed {type(error).__name__}"
    note(verdicts, path, verdict)


def _make(path: str, out: str) -> None:
    from pi_heif import register_heif_opener
    from PIL import Image, ImageOps

    register_heif_opener(thumbnails=False)
    name = os.path.basename(path)
    with Image.open(path) as opened:
        opened.draft("RGB", (max(SIZES), max(SIZES)))
        image = ImageOps.exif_transpose(opened)
        if image.mode not in ("RGB", "RGBA"):
            image = image.convert("RGB")
        for size in sorted(SIZES, reverse=True):
            image.thumbnail((size, size))
            image.save(os.path.join(out, f"{name}.{size}.webp"), quality=80)


def note(verdicts: str, path: str, verdict: str) -> None:
    """Appends a verdict: one write, so that lines of several processes do not mix."""
    descriptor = os.open(verdicts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{os.path.basename(path)}\t{verdict}\n".encode())
    finally:
        os.close(descriptor)


def read(verdicts: str) -> Iterator[tuple[str, str]]:
    """Yields (file, verdict) as far as they are written down."""
    if not os.path.exists(verdicts):
        return
    with open(verdicts, encoding="utf-8") as file:
        for line in file:
            name, _, verdict = line.rstrip("\n").partition("\t")
            if verdict:
                yield name, verdict
