"""The vector stores of a state directory, one for each model and length, and how far the results were read.

Its lock is held as long as it is in use: two commands at once would both add the same rows. How far was read is written
after the rows; a death in between means that some are read, and added, once more.
"""

import fcntl
import os
import re
from collections.abc import Iterable

from supervisor.mechanism.vectors.store import Entry, Kind, VectorStore

DIRECTORY = "vectors"
_READ = "read-up-to"
_MODEL = re.compile(r"[0-9a-f]{16}")


class Shelf:
    """A context manager. Raises OSError where the state directory cannot be written."""

    def __init__(self, state_directory: str, kind: Kind = "float16") -> None:
        self._directory = os.path.join(state_directory, DIRECTORY)
        self._kind: Kind = kind
        self._stores: dict[tuple[str, int], VectorStore] = {}

    def __enter__(self) -> "Shelf":
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._lock = os.open(os.path.join(self._directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for name in sorted(os.listdir(self._directory)):
            model, _, rest = name.partition(".")
            dimensions, _, kind = rest.partition(".")
            if _MODEL.fullmatch(model) and dimensions.isdigit() and kind == self._kind:
                self._store(model, int(dimensions))
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
        os.close(self._lock)

    @property
    def read_up_to(self) -> int:
        """The number of settling up to which results were read; 0 at first."""
        try:
            with open(self._read_path, encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return 0

    @property
    def _read_path(self) -> str:
        """Each kind is read by itself: whoever changes the kind loses nothing."""
        return os.path.join(self._directory, _READ if self._kind == "float16" else f"{_READ}.{self._kind}")

    @property
    def stores(self) -> list[VectorStore]:
        """Every store there is."""
        return list(self._stores.values())

    def add(self, images: Iterable[tuple[str, Entry, bytes]]) -> int:
        """Adds (model, image, vector as float16) and returns how many; what is no vector of a model is passed over.

        Raises OSError.
        """
        rows: dict[tuple[str, int], tuple[list[Entry], list[bytes]]] = {}
        for model, entry, vector in images:
            if _MODEL.fullmatch(model) and vector and len(vector) % 2 == 0:
                entries, vectors = rows.setdefault((model, len(vector) // 2), ([], []))
                entries.append(entry)
                vectors.append(vector)
        added = 0
        for (model, dimensions), (entries, vectors) in rows.items():
            try:
                self._store(model, dimensions).add(entries, vectors)
            except ValueError:
                continue  # longer than anything that is kept
            added += len(entries)
        return added

    def finish(self, read_up_to: int) -> None:
        """Says that all results up to that number were added; writes stores anew where that is due. Raises OSError."""
        for store in self.stores:
            store.compact()
        path = self._read_path
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(str(read_up_to))
        os.replace(f"{path}.new", path)

    def clear(self) -> None:
        """Forgets everything: the results are those of another journal. Raises OSError."""
        for store in self.stores:
            store.remove()
        self._stores.clear()
        self.finish(0)

    def drop(self) -> None:
        """Gives the memory of all stores back."""
        for store in self.stores:
            store.drop()

    def _store(self, model: str, dimensions: int) -> VectorStore:
        key = (model, dimensions)
        if key not in self._stores:
            self._stores[key] = VectorStore(self._directory, model, dimensions, self._kind)
        return self._stores[key]
