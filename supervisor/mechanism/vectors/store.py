"""One model's vectors in two files that only grow: rows of numbers, and a line of JSON for each row's image.

A row counts when both files have it whole: rows are written first, lines after them, and what a death left over at
either end is cut off before more is added. A newer row of an image replaces the older one; when more than half of the
rows are replaced the files are written anew.

int8 takes half of the room: each vector is scaled to its own largest number, which its direction does not notice. On
vectors of 512 numbers cosines are then off by less than 0.001.
"""

import mmap
import os
from typing import Any, Literal

import msgspec

Kind = Literal["float16", "int8"]
MAX_DIMENSIONS = 8192
_BYTES: dict[str, int] = {"float16": 2, "int8": 1}
_INT8 = 127


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The image of a row: its path token, its width and height in pixels (0: not known)."""

    path: str
    width: int = 0
    height: int = 0


_line = msgspec.json.Decoder(Entry)


class VectorStore:
    """Vectors of `dimensions` numbers in `directory`/`name`.*; nothing is loaded before it is asked for."""

    def __init__(self, directory: str, name: str, dimensions: int, kind: Kind = "float16") -> None:
        """Raises ValueError for dimensions nobody has."""
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"vectors of {dimensions} numbers; 1 to {MAX_DIMENSIONS} are kept")
        self.dimensions, self.kind = dimensions, kind
        self.row_bytes = dimensions * _BYTES[kind]
        self._base = os.path.join(directory, name)
        self._entries: list[Entry] | None = None
        self._map: mmap.mmap | None = None
        self._matrix: Any = None

    @property
    def loaded(self) -> bool:
        """Whether anything is in memory."""
        return self._entries is not None or self._map is not None

    def entries(self) -> list[Entry]:
        """Returns the images by row, replaced ones too. Raises OSError."""
        if self._entries is None:
            self._entries = self._read()
        return self._entries

    def newest(self) -> dict[str, int]:
        """Returns the row that counts for each image, by path token."""
        return {entry.path: row for row, entry in enumerate(self.entries())}

    def matrix(self) -> Any:
        """Returns the rows as an array that is the file itself, read as its pages are touched. Raises OSError."""
        import numpy

        if self._matrix is None:
            rows = len(self.entries())
            if not rows:
                return numpy.zeros((0, self.dimensions), self.kind)
            with open(self._rows_path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), rows * self.row_bytes, access=mmap.ACCESS_READ)
            self._matrix = numpy.frombuffer(self._map, self.kind).reshape(rows, self.dimensions)
        return self._matrix

    def let_go(self) -> None:
        """Gives the pages of the array back that were read; it stays, and what is looked at again is read again."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def drop(self) -> None:
        """Gives all memory back; what is asked for next is read again. Arrays that callers hold stay whole."""
        self._entries = self._matrix = None
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                pass  # somebody holds an array: the map goes with it
            self._map = None

    def add(self, entries: list[Entry], vectors: list[bytes]) -> None:
        """Adds rows, each vector as float16 (little-endian) of the right length. Raises OSError, ValueError."""
        wrong = [len(vector) for vector in vectors if len(vector) != 2 * self.dimensions]
        if wrong or len(entries) != len(vectors):
            raise ValueError(f"{len(entries)} images, {len(vectors)} vectors, of wrong length: {wrong[:5]}")
        rows = len(self.entries())
        self.drop()
        content = b"".join(vectors) if self.kind == "float16" else _as_int8(b"".join(vectors), self.dimensions)
        _append(self._rows_path, rows * self.row_bytes, content)
        _append(self._names_path, self._names_bytes, b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))

    def compact(self) -> bool:
        """Writes the files anew when more than half of the rows are replaced; returns whether it did. Raises OSError.

        A death between the two renames leaves names that belong to other rows; so the names go first, and for that
        moment there are none.
        """
        kept = sorted(self.newest().values())
        entries = self.entries()
        if 2 * len(kept) >= len(entries):
            return False
        matrix = self.matrix()
        with open(self._rows_path + ".new", "wb") as rows, open(self._names_path + ".new", "wb") as names:
            for row in kept:
                rows.write(matrix[row].tobytes())
                names.write(msgspec.json.encode(entries[row]) + b"\n")
        del matrix
        self.drop()
        os.unlink(self._names_path)
        os.replace(self._rows_path + ".new", self._rows_path)
        os.replace(self._names_path + ".new", self._names_path)
        return True

    def remove(self) -> None:
        """Deletes the files. Raises OSError."""
        self.drop()
        for path in (self._names_path, self._rows_path):
            if os.path.exists(path):
                os.unlink(path)

    @property
    def _rows_path(self) -> str:
        return f"{self._base}.{self.dimensions}.{self.kind}"

    @property
    def _names_path(self) -> str:
        return f"{self._rows_path}.names"

    def _read(self) -> list[Entry]:
        self._names_bytes = 0
        try:
            whole = os.stat(self._rows_path).st_size // self.row_bytes
            with open(self._names_path, "rb") as file:
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        entries: list[Entry] = []
        for line in lines[:whole]:
            try:
                entries.append(_line.decode(line))
            except msgspec.DecodeError:
                break  # damaged: what follows is read from the results again only where they are settled anew
            self._names_bytes += len(line) + 1
        return entries

    _names_bytes = 0


def _append(path: str, at: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, at)
        with open(descriptor, "wb", closefd=False) as file:
            file.seek(at)
            file.write(content)
    finally:
        os.close(descriptor)


def _as_int8(content: bytes, dimensions: int) -> bytes:
    import numpy

    rows = numpy.frombuffer(content, "<f2").astype("float32").reshape(-1, dimensions)
    largest = numpy.maximum(numpy.abs(rows).max(axis=1, keepdims=True), 1e-12)
    scaled: bytes = numpy.rint(rows / largest * _INT8).astype("int8").tobytes()
    return scaled
