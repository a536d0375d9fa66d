"""The journal read by the command line where no supervisor runs: never writes, never checkpoints."""

import os
import sqlite3

from protocol.messages import AnyAnswer, AnyRequest
from supervisor.mechanism.journal import queries, schema

JOURNAL_FILE = "queue.db"


class OfflineReader:
    """Answers `Progress ListBatches Results Why Events QuarantineList` from a state directory; a context manager.

    Raises StateDirectoryUnusable where there is no state, one of another schema, or a damaged one.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, JOURNAL_FILE)
        self._connection = schema.open_for_reading(self._path)

    def answer(self, request: AnyRequest) -> AnyAnswer:
        """Returns the answer, a Problem where there is none (unknown batch, or a request for a supervisor)."""
        try:
            return queries.answer(self._connection, request, {})
        except sqlite3.Error as error:
            raise schema.unusable(self._path, error) from error

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def __enter__(self) -> "OfflineReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
