"""Files for a browser: outputs to download, and small pictures of images. Nothing is decoded here.

Only workers open untrusted images, in their sandbox; this process hands out bytes. So a picture of an image in
progress is what the camera put into its EXIF, or the file itself where that is small; and everything goes out with a
type from a short list, in a sandbox of the browser's: an SVG or HTML among the outputs is a download, never a page of
ours.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from io import FileIO

from starlette.responses import Response, StreamingResponse

from supervisor.gateway.exif import thumbnail_of
from supervisor.gateway.places import Outside, Places

PIECE_BYTES = 64 * 1024
TYPES = {
    b".webp": "image/webp", b".jpg": "image/jpeg", b".jpeg": "image/jpeg", b".png": "image/png", b".gif": "image/gif",
    b".avif": "image/avif",
}  # fmt: skip
PICTURE_BYTES = 400_000
"""The largest file that is shown as it is beside a worker's name."""
HEAD_BYTES = 192 * 1024
"""Where an EXIF thumbnail lies: in the first segments, each 64 KB at most."""
_SANDBOX = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, max-age=300"}


def below(directory: bytes, name: bytes) -> bytes:
    """Returns the path of an output. Raises Outside for names that lead elsewhere or are hidden."""
    parts = name.split(b"/")
    if any(part in (b"", b".", b"..") or part.startswith(b".") or b"\0" in part for part in parts):
        raise Outside("that is no name of an output")
    return os.path.join(directory, name)


async def send_file(places: Places, path: bytes, directory: bytes) -> Response:
    """Returns a file below a directory that is below a root. Raises Outside, FileNotFoundError."""
    real, top = await asyncio.to_thread(lambda: (places.resolve(path), places.resolve(directory)))
    if not real.startswith(top.rstrip(b"/") + b"/"):
        raise Outside("it is not among the outputs of the batch")
    file = await asyncio.to_thread(lambda: FileIO(places.open(real)))
    size = os.fstat(file.fileno()).st_size
    kind = TYPES.get(os.path.splitext(path)[1].lower())
    headers = {**_SANDBOX, "content-length": str(size)}
    if kind is None:
        headers["content-disposition"] = "attachment"
    return StreamingResponse(_pieces(file, size), 200, headers, kind or "application/octet-stream")


async def send_picture(places: Places, path: bytes) -> Response:
    """Returns a small picture of an image, 204 where there is none to be had without decoding it."""
    found = await asyncio.to_thread(_picture, places, path)
    if found is None:
        return Response(None, 204)
    picture, kind = found
    return Response(picture, 200, _SANDBOX, kind)


def _picture(places: Places, path: bytes) -> tuple[bytes, str] | None:
    file = places.open(path)
    try:
        head = os.pread(file, HEAD_BYTES, 0)
        thumbnail = thumbnail_of(head)
        if thumbnail is not None:
            return thumbnail, "image/jpeg"
        kind = _kind_of(head)
        if kind is None or os.fstat(file).st_size > PICTURE_BYTES:
            return None
        return os.pread(file, PICTURE_BYTES, 0), kind
    finally:
        os.close(file)


def _kind_of(head: bytes) -> str | None:
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


async def _pieces(file: FileIO, size: int) -> AsyncIterator[bytes]:
    with file:
        while size > 0:
            piece = await asyncio.to_thread(file.read, min(PIECE_BYTES, size))
            if not piece:
                raise OSError("the file became shorter while it was sent")
            size -= len(piece)
            yield piece
