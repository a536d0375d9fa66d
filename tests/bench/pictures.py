"""The galleries of the thumbnail benchmark, made by code where nobody names one: photos as cameras take them, and
many small ones, where the work an image costs is little and ours beside it shows most."""

import os

from workers import specimens

CAMERAS = (
    (1280, 960), (1600, 1200), (2048, 1536), (2592, 1944), (3072, 2304),
    (3648, 2736), (4000, 3000), (4608, 3456), (5184, 3456), (6240, 4160),
)  # fmt: skip
"""1 to 26 megapixels."""
SMALL = ((320, 240), (400, 300), (480, 360), (640, 480))


def camera(directory: str, count: int) -> list[str]:
    """Makes `count` photos of 1 to 26 megapixels, every fourth turned; returns their names."""
    return _make(directory, count, CAMERAS, "IMG")


def small(directory: str, count: int) -> list[str]:
    """Makes `count` photos of a tenth to a third of a megapixel; returns their names."""
    return _make(directory, count, SMALL, "small")


def found(directory: str) -> list[str]:
    """Returns the names of the files below a directory, sorted."""
    names = [
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, _, files in os.walk(directory)
        for name in files
        if not name.startswith(".")
    ]
    return sorted(names)


def _make(directory: str, count: int, sizes: tuple[tuple[int, int], ...], stem: str) -> list[str]:
    os.makedirs(directory, exist_ok=True)
    contents = [specimens.photo(*size, seed=seed) for seed, size in enumerate(sizes[: max(1, count)])]
    names = []
    for number in range(count):
        picture = contents[number % len(contents)]
        name = f"{stem}_{number:04d}.jpg"
        orientation = 6 if number % 4 == 3 else 1
        with open(os.path.join(directory, name), "wb") as file:
            file.write(numbered(specimens.jpeg(picture, orientation=orientation, quality=84 + number % 8), number))
        names.append(name)
    return names


def numbered(content: bytes, number: int) -> bytes:
    """Returns the JPEG with a number in a comment: no two of a gallery are the same to a cache."""
    return content[:2] + b"\xff\xfe\x00\x0a%08d" % number + content[2:]
