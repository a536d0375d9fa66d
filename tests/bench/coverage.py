"""What is read of a folder of real files: by us, by Pillow with its HEIF plugin and by libvips called bare.

Bare means as their manuals show it: `Image.open` and `thumbnail`, `Image.thumbnail` of pyvips, no limits changed, no
loader blocked. Each file is read in a process of its own, which may end or hang: then it was not read. Ours is an item
with one thumbnail under the default limits. What the union has and we have not is listed, apart from what we refuse on
purpose: images above our limits, and files other than TIFFs of which a decoder told nothing but one colour.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Literal

from protocol.launch import ImageLimits
from protocol.paths import to_token
from tests.bench import pictures
from tests.bench.rows import Row
from tests.bench.terms import Terms
from workers import specimens

SECONDS = 60.0
Found = Literal["read", "blank", "limit", "no"]
"""`blank`: pixels, all of one colour; `limit`: refused by a limit of ours."""
Reader = Callable[[str], tuple[Found, str]]
_LISTED = 20


def run(terms: Terms) -> Iterator[Row]:
    """One row for each folder: how many files ours reads against the union of the bare engines."""
    with tempfile.TemporaryDirectory(prefix="bench-coverage-") as place:
        if terms.gallery is not None:
            yield folder(terms.gallery)
        else:
            specimens.make_gallery(place, terms.count(60, 20), giant_megapixels=9)
            yield folder(place)


def folder(root: str) -> Row:
    """Returns the row of one folder."""
    names = pictures.found(root)
    counts = {"pillow": 0, "vips": 0, "union": 0, "ours": 0, "alone": 0, "limit": 0, "blank": 0}
    lost: list[str] = []
    for name in names:
        path = os.path.join(root, name)
        ours, why = _asked(_ours, path)
        pillow, vips = _asked(_pillow, path)[0], _asked(_vips, path)[0]
        bare = {pillow, vips}
        counts["pillow"] += pillow != "no"
        counts["vips"] += vips != "no"
        counts["union"] += bare != {"no"}
        counts["ours"] += ours == "read"
        counts["alone"] += ours == "read" and bare == {"no"}
        if ours != "read" and bare != {"no"}:
            refused = "limit" if ours == "limit" else "blank" if "read" not in bare else ""
            if refused:
                counts[refused] += 1
            else:
                lost.append(f"{name} ({why})")
    for each in lost[:_LISTED]:
        print(f"    not read: {each}", file=sys.stderr)
    wanted = counts["union"] - counts["limit"] - counts["blank"]
    told = (
        f"of {len(names):,} files: Pillow bare {counts['pillow']:,}, libvips bare {counts['vips']:,}, together "
        f"{counts['union']:,}; refused of those by a limit {counts['limit']:,}, as nothing but one colour "
        f"{counts['blank']:,}; read by us alone {counts['alone']:,}; lost {len(lost):,}"
    )
    return Row(
        name=f"files read, {os.path.basename(os.path.abspath(root))}",
        ours=counts["ours"],
        unit="files",
        peer=wanted,
        peer_name="Pillow and libvips bare",
        ratio=counts["ours"] / wanted if wanted else None,
        target="none lost",
        met=not lost,
        beside=told,
    )


def _asked(reader: Reader, path: str) -> tuple[Found, str]:
    """Asks a reader in a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(reader, path, there), daemon=True)
    child.start()
    there.close()
    try:
        if not here.poll(SECONDS):
            return "no", f"more than {SECONDS:.0f} seconds"
        answer: tuple[Found, str] = here.recv()
        return answer
    except EOFError:
        return "no", "its process died"
    finally:
        here.close()
        child.kill()
        child.join()


def _answer(reader: Reader, path: str, there: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        there.send(reader(path))
    except Exception as error:
        there.send(("no", f"{type(error).__name__}: {str(error)[:200]}"))


def _pillow(path: str) -> tuple[Found, str]:
    from PIL import Image

    from workers.images import heif

    Image.MAX_IMAGE_PIXELS = 1024 * 1024 * 1024 // 4 // 3  # Pillow's default, which the workers set aside
    heif.register()
    with Image.open(path) as image:
        image.thumbnail((256, 256))
        return _seen(image.convert("RGBA").getextrema())


def _vips(path: str) -> tuple[Found, str]:
    os.environ["VIPS_CONCURRENCY"] = "1"
    import pyvips

    image = pyvips.Image.thumbnail(path, 256)
    memory = image.write_to_memory()
    size = len(memory) // (image.width * image.height)
    return ("blank" if memory == bytes(memory[:size]) * (image.width * image.height) else "read"), ""


def _ours(path: str) -> tuple[Found, str]:
    from tests.mechanism.performing import Bench, step

    with tempfile.TemporaryDirectory(prefix="bench-coverage-") as place:
        report = Bench(place, ImageLimits()).run(os.fsencode(path), step("thumbnail", sizes=[256]))
    if report.error is None:
        return "read", ""
    limited = report.error.kind in ("too_large", "too_many_pixels")
    return ("limit" if limited else "no"), report.error.message.replace(to_token(os.fsencode(path)), "it")


def _seen(extrema: object) -> tuple[Found, str]:
    bands = extrema if isinstance(extrema, tuple) else ()
    return ("blank" if all(low == high for low, high in bands) else "read"), ""
