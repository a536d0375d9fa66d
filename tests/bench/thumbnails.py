"""Thumbnails of a real gallery, durable and watched, against a bare pool that does nothing but the images."""

import os
import shutil
import tempfile
from collections.abc import Iterator

from protocol.paths import to_token
from tests.bench import barepool, pictures, probes
from tests.bench.house import House
from tests.bench.rows import Row, against
from tests.bench.terms import Terms

WORKERS = 2
NICE = 10
RATIO = 0.97
PEER = "bare multiprocessing.Pool, same calls, no fsync"


def run(terms: Terms) -> Iterator[Row]:
    """The gallery named, or photos of cameras made by code; and 1,000 small ones."""
    place = tempfile.mkdtemp(prefix="bench-gallery-")
    try:
        if terms.gallery is not None:
            root = os.path.abspath(terms.gallery)
            yield _compare(terms, f"thumbnails, {os.path.basename(root)}", root, pictures.found(root), place, 1)
        else:
            root = os.path.join(place, "camera")
            names = pictures.camera(root, terms.count(60, 20))
            yield _compare(terms, "thumbnails, photos of 1 to 26 megapixels", root, names, place, 1)
        root = os.path.join(place, "small")
        names = pictures.small(root, terms.count(1000))
        yield _compare(terms, f"thumbnails, {len(names):,} small photos", root, names, place, 8)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _compare(terms: Terms, name: str, root: str, names: list[str], place: str, chunk: int) -> Row:
    """Both warm, one after the other, into fresh directories of one file system, the order swapped each time. Without
    the cache: the peer keeps nothing for a second run either (what keeping costs is the row `cache-cost`)."""
    ours: list[float] = []
    theirs: list[float] = []
    tokens = [to_token(os.fsencode(each)) for each in names]
    with (
        House("--cache", "no", "--nice", str(NICE), workers=WORKERS) as house,
        barepool.start(WORKERS, NICE, True) as pool,
    ):
        house.run("thumbs", to_token(os.fsencode(root)), tokens[:8], os.path.join(place, "warm"))
        barepool.seconds(pool, names[:8], root, os.path.join(place, "warm-peer"), 1)
        for number in range(terms.runs):
            for turn in (0, 1):
                out = os.path.join(place, f"out-{number}-{turn}")
                os.sync()  # neither pays for what the other left to be written
                if turn == number % 2:
                    ours.append(len(names) / house.run("thumbs", to_token(os.fsencode(root)), tokens, out))
                else:
                    theirs.append(len(names) / barepool.seconds(pool, names, root, out, chunk))
                shutil.rmtree(out)
        beside = probes.told("fsync of 4 KB", lambda: probes.fsync(place))
    return against(name, ours, PEER, theirs, "images/s", ratio_at_least=RATIO, beside=beside)
