"""Which files below a directory are items: regular, not hidden, and images by name or first bytes.

A walk holds the names of one block of one directory and of the directories still to come, never the whole
gallery. Links inside a directory are not followed, so there are no loops. What cannot be read is told and
counted; it never ends the walk.
"""

import itertools
import os
from collections.abc import Callable, Iterator

from protocol.paths import to_token

BLOCK_ENTRIES = 10_000
"""Entries of one directory held and sorted at once: bounds memory where a million photos lie in one."""

IMAGE_EXTENSIONS = frozenset(
    b"jpg jpeg jpe jfif mpo png apng gif webp tif tiff bmp dib ico cur heic heif hif avif jxl jp2 j2k jpf jpx "
    b"psd psb svg svgz tga pcx pbm pgm ppm pnm pam hdr exr fli flc dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 "
    b"raf pef srw x3f".split()
)

_HEAD_BYTES = 16
_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"8BPS",
    b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
)  # fmt: skip
_FTYP_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ")


class Walk:
    """One walk below `root` (absolute). Iterating yields path tokens relative to it.

    `skip` are directories, as real paths, that are not entered (the output, the state). `warn` is told what
    could not be read. `ignored` and `unreadable` grow as the walk goes.
    """

    def __init__(self, root: bytes, skip: frozenset[bytes], warn: Callable[[str], None]) -> None:
        self.ignored = 0
        self.unreadable = 0
        self._root = root
        self._real = os.path.realpath(root)
        self._skip = skip
        self._warn = warn

    def __iter__(self) -> Iterator[str]:
        waiting = [b""]
        while waiting:
            below: list[bytes] = []
            directory = waiting.pop()
            for block in self._blocks(directory):
                for entry in block:
                    if self._is_item(entry, directory, below):
                        yield to_token(directory + entry.name)
            below.sort(reverse=True)
            waiting += below

    def _blocks(self, directory: bytes) -> Iterator[list[os.DirEntry[bytes]]]:
        path = os.path.join(self._root, directory)
        try:
            with os.scandir(path) as entries:
                while block := list(itertools.islice(entries, BLOCK_ENTRIES)):
                    block.sort(key=_name)
                    yield block
        except OSError as error:
            self._miss(path, error)

    def _is_item(self, entry: os.DirEntry[bytes], directory: bytes, below: list[bytes]) -> bool:
        try:
            if entry.is_dir(follow_symlinks=False):
                relative = directory + entry.name
                if not entry.name.startswith(b".") and os.path.join(self._real, relative) not in self._skip:
                    below.append(relative + b"/")
                return False
            plain = entry.is_file(follow_symlinks=False) and not entry.name.startswith(b".")
            if plain and (has_image_name(entry.name) or has_image_bytes(entry.path)):
                return True
        except OSError as error:
            self._miss(entry.path, error)
        self.ignored += 1
        return False

    def _miss(self, path: bytes, error: OSError) -> None:
        self.unreadable += 1
        self._warn(f"cannot read {os.fsdecode(path)}: {error.strerror}")


def has_image_name(name: bytes) -> bool:
    """Tells whether the extension is one of an image format."""
    return name[name.rfind(b".") + 1 :].lower() in IMAGE_EXTENSIONS


def has_image_bytes(path: bytes) -> bool:
    """Tells whether a regular file begins like an image. Raises OSError where it cannot be read."""
    # Between scandir and here the file may have become a link or a pipe: neither is followed or waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return is_image_head(os.read(descriptor, _HEAD_BYTES))
    finally:
        os.close(descriptor)


def is_image_head(head: bytes) -> bool:
    """Tells whether these first bytes are those of an image format."""
    if head.startswith(_SIGNATURES):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":
        return len(head) >= 10 and head[6:10] == b"\0\0\0\0"  # two reserved words: text may begin with BM as well
    return head[4:8] == b"ftyp" and head[8:12] in _FTYP_BRANDS


def _name(entry: os.DirEntry[bytes]) -> bytes:
    return entry.name
