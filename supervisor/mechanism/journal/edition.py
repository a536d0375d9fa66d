"""Which SQLite this Python brings, and whether the journal can live with it."""

import sqlite3

NEEDED = (3, 38, 0)
"""The first with JSON functions always built in; every statement for a group of rows works over them."""
WITHOUT_RESET_BUG = (3, 51, 3)
"""Before it, two writers or checkpointers could lose committed pages of a WAL; the journal has one of each."""


def sqlite_edition() -> tuple[int, ...]:
    """Returns the version of the SQLite library in use."""
    return sqlite3.sqlite_version_info
