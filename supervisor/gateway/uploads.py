"""Images that come with a request: written as they arrive, each upload in a folder of its own, gone with its batch.

    STATE/http/uploads/<batch>/in/<name>      what came
    STATE/http/uploads/<batch>/out/...        what is made of it, unless the upload names another directory

What a client calls its file is a wish: folders, leading dots and what no file system takes are left away. The folder
goes when the supervisor no longer knows the batch (retention), at once when an upload is broken off.
"""

import os
import shutil
import time
from collections.abc import Callable
from io import FileIO
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from protocol.errors import MachineError, UsageError
from supervisor.gateway.access import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILES_MOST = 1_000
FIELD_BYTES = 64 * 1024
FIELDS_MOST = 20
HEAD_BYTES = 8 * 1024
NAME_BYTES = 200
"""Of 255: outputs are named after it, with a label behind."""
DISK_FREE_BYTES = 256 * 1024 * 1024
"""Left on the disk: the journal is on it."""
UNKNOWN_SECONDS = 3_600.0
"""A folder without a batch may be an upload under way, for so long."""


class Upload:
    """One upload: the parser's callbacks. Files land in `folder`/in; fields in `fields`. It writes: for a thread."""

    def __init__(self, folder: bytes, content_type: str, room_bytes: int | None) -> None:
        """Raises UsageError for a request that is no multipart/form-data."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise UsageError("an upload is multipart/form-data with a boundary")
        self.folder = folder
        self.fields: dict[str, str] = {}
        self.names: list[bytes] = []
        self._room_bytes = room_bytes
        self._complete = False
        self._header: tuple[bytes, bytes] = (b"", b"")
        self._disposition = b""
        self._field: tuple[str, bytearray] | None = None
        self._file: FileIO | None = None
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin, "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value, "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_head, "on_part_data": self._on_data, "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }  # fmt: skip
        self._parser = MultipartParser(boundary, callbacks)
        os.makedirs(os.path.join(folder, b"in"), mode=0o700)

    def write(self, piece: bytes) -> None:
        """Takes in what came. Raises UsageError, Refusal 413, MachineError."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise UsageError(f"the upload is no multipart/form-data: {error}") from error
        except OSError as error:
            raise MachineError(f"the upload cannot be kept: {error.strerror}") from error

    def end(self) -> None:
        """Says that all has come. Raises UsageError where that cannot be."""
        if not self._complete:
            raise UsageError("the upload ends in the middle")
        if not self.names:
            raise UsageError("the upload has no image: send each as a part with a filename")

    def discard(self) -> None:
        """Deletes what was kept."""
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        self._disposition = b""
        self._header = (b"", b"")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])
        self._check_head()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])
        self._check_head()

    def _check_head(self) -> None:
        if sum(map(len, self._header)) > HEAD_BYTES:
            raise UsageError(f"a part of the upload has a head of more than {HEAD_BYTES:,} bytes")

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (b"", b"")

    def _on_head(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" in options:
            if len(self.names) >= FILES_MOST:
                raise Refusal(413, "too_large", f"more than {FILES_MOST:,} images in one upload")
            name = self._free_name(safe_name(options[b"filename"]))
            self.names.append(name)
            self._file = FileIO(os.path.join(self.folder, b"in", name), "xb")
            return
        if len(self.fields) >= FIELDS_MOST:
            raise UsageError(f"more than {FIELDS_MOST} fields in one upload")
        self._field = (options.get(b"name", b"").decode("utf-8", "replace"), bytearray())

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._file is not None:
            self._take(len(piece))
            self._file.write(piece)
        elif self._field is not None:
            self._field[1].extend(piece)
            if len(self._field[1]) > FIELD_BYTES:
                raise UsageError(f"a field of the upload has more than {FIELD_BYTES:,} bytes")

    def _take(self, size: int) -> None:
        if self._room_bytes is None:
            return
        self._room_bytes -= size
        if self._room_bytes < 0:
            raise Refusal(413, "too_large", "no room for these images: uploads may take http_upload, and part is taken")

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._field is not None:
            self.fields[self._field[0]] = self._field[1].decode("utf-8", "replace")
            self._field = None

    def _on_end(self) -> None:
        self._complete = True

    def _free_name(self, name: bytes) -> bytes:
        stem, dot, extension = name.rpartition(b".")
        if not dot:
            stem, extension = name, b""
        taken, tried, number = set(self.names), name, 1
        while tried in taken:
            number += 1
            tried = b"%s-%d%s%s" % (stem, number, dot, extension)
        return tried


def safe_name(wished: bytes) -> bytes:
    """Returns a file's name as it may be kept, for what a client calls it."""
    last = wished.replace(b"\\", b"/").rpartition(b"/")[2]
    kept = bytes(byte for byte in last if byte >= 0x20 and byte != 0x7F).lstrip(b".").strip()
    if len(kept) > NAME_BYTES:
        stem, dot, extension = kept.rpartition(b".")
        extension = dot + extension if len(extension) <= 10 else b""
        kept = (stem or kept)[: NAME_BYTES - len(extension)] + extension
    return kept or b"image"


def room_bytes(uploads: bytes, limit_bytes: int | None) -> int:
    """Returns how much may still be uploaded: of the limit, and of the disk. Looks at every file there is."""
    disk = os.statvfs(uploads)
    free = disk.f_bavail * disk.f_frsize - DISK_FREE_BYTES
    return max(0, free if limit_bytes is None else min(free, limit_bytes - _held(uploads)))


def sweep(uploads: bytes, known: Callable[[str], bool]) -> int:
    """Deletes the folders of batches that the supervisor does not know any more; returns how many."""
    count = 0
    for entry in os.scandir(uploads):
        old = time.time() - entry.stat(follow_symlinks=False).st_mtime > UNKNOWN_SECONDS
        if old and not known(os.fsdecode(entry.name)):
            shutil.rmtree(entry.path, ignore_errors=True)
            count += 1
    return count


def _held(top: bytes) -> int:
    total = 0
    for where, _, names in os.walk(top):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # an unfinished output got its name meanwhile
    return total
