"""Images for tests, made by code (`workers.specimens`): whole galleries, and one file of each kind."""

import os

from workers import specimens


def make_gallery(directory: str | os.PathLike[str], count: int, *, odd: bool = False) -> list[str]:
    """Fills a directory with `count` images and returns their paths, sorted; `odd`: hostile ones among them."""
    specimens.make_gallery(os.fspath(directory), count, odd=odd, giant_megapixels=9)
    return sorted(os.path.join(directory, name) for name in os.listdir(directory))


def write(directory: str | os.PathLike[str], name: str | bytes, content: bytes) -> bytes:
    """Writes one file and returns its path as bytes."""
    path = os.path.join(os.fsencode(directory), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return path


def small_jpeg(seed: int = 0, side: int = 64) -> bytes:
    """Returns a sound JPEG of a kilobyte or two: for tests that need many."""
    return specimens.jpeg(specimens.photo(side, side * 3 // 4, seed))
