"""The shape of `queue.db`, and what is done with a file of another shape.

`PRAGMA user_version` counts the migrations a file has been through. An older file gets those it lacks, each
in its own transaction; a newer one is refused with both numbers, because writing to a shape we do not know
would destroy what the newer program keeps there.

An item is settled by a number that only grows (`settled`, over all batches): results are read in that order
and a reader goes on after the last number it saw. The partial indexes hold only what is looked for: pending
items, quarantined items, settled items with their state (so that counting a batch reads the index alone).
"""

import contextlib
import os
import sqlite3
from collections.abc import Sequence

from protocol.errors import StateDirectoryUnusable

APPLICATION_ID = 0x47534A31
"""Four bytes in the file's header ("GSJ1") that tell our journal from any other SQLite file."""

CACHE_KIBIBYTES = 2048
"""SQLite's own default. Four times as much made the supervisor 6 MB larger after 100,000 items, and not faster."""
WAL_PAGES = 4000
"""A checkpoint follows the commit that makes the WAL longer than this: 16 MB at 4 KiB a page."""
WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""What a WAL that once grew by one large transaction is cut back to."""
BUSY_MILLISECONDS = 5000
"""Others may look into the file (a backup, a shell): wait for them so long before it counts as a stall."""

Migration = Sequence[str]

VERSION_1: Migration = (
    """CREATE TABLE batches(
        number INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL UNIQUE, recipe TEXT NOT NULL, out TEXT,
        overwrite INTEGER NOT NULL, strict INTEGER NOT NULL, priority INTEGER NOT NULL, hold INTEGER NOT NULL,
        fingerprint TEXT, kind TEXT NOT NULL, opened_at REAL NOT NULL, open INTEGER NOT NULL, state TEXT NOT NULL,
        paused TEXT, finished_at REAL, items INTEGER NOT NULL DEFAULT 0, ignored INTEGER NOT NULL DEFAULT 0,
        next_chunk INTEGER NOT NULL DEFAULT 0, counts TEXT, summary TEXT NOT NULL)""",
    "CREATE INDEX batches_fingerprint ON batches(fingerprint) WHERE fingerprint IS NOT NULL",
    "CREATE INDEX batches_out ON batches(out) WHERE out IS NOT NULL",
    """CREATE TABLE roots(batch INTEGER NOT NULL, number INTEGER NOT NULL, root TEXT NOT NULL, prefix TEXT NOT NULL,
        PRIMARY KEY(batch, number)) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX roots_root ON roots(root, batch, prefix)",
    """CREATE TABLE items(
        id INTEGER PRIMARY KEY AUTOINCREMENT, batch INTEGER NOT NULL, root INTEGER NOT NULL, stem TEXT NOT NULL,
        state INTEGER NOT NULL DEFAULT 0, charges INTEGER NOT NULL DEFAULT 0,
        memory_charges INTEGER NOT NULL DEFAULT 0, outside_kills INTEGER NOT NULL DEFAULT 0,
        unclean_stops INTEGER NOT NULL DEFAULT 0, needs_bytes INTEGER NOT NULL DEFAULT 0,
        tries INTEGER NOT NULL DEFAULT 0, seconds REAL, peak_bytes INTEGER, slot INTEGER, detail TEXT,
        settled INTEGER, settled_at REAL, UNIQUE(batch, stem))""",
    "CREATE INDEX items_pending ON items(batch) WHERE state = 0",
    "CREATE INDEX items_quarantined ON items(batch) WHERE state = 4",
    "CREATE INDEX items_settled ON items(batch, settled, state) WHERE settled IS NOT NULL",
    """CREATE TABLE quarantine(
        path TEXT NOT NULL, version TEXT NOT NULL, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        kind TEXT NOT NULL, message TEXT NOT NULL, recipe TEXT NOT NULL, at REAL NOT NULL, evidence TEXT NOT NULL,
        PRIMARY KEY(path, version))""",
    """CREATE TABLE decisions(
        number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL,
        slot INTEGER, batch TEXT, path TEXT, figures TEXT NOT NULL)""",
    "CREATE INDEX decisions_slot ON decisions(slot) WHERE slot IS NOT NULL",
    "CREATE INDEX decisions_path ON decisions(path) WHERE path IS NOT NULL",
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

VERSION_2: Migration = (
    "ALTER TABLE batches ADD COLUMN used_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE batches ADD COLUMN thinned INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE dropping(number INTEGER PRIMARY KEY, out TEXT)",
    "CREATE TABLE written(name INTEGER PRIMARY KEY)",
)
"""Retention: the last look at a batch, how far its large results are dropped (the number of settling; -1: all), the
batches whose items are still to be dropped, and hashes of the output names that forgotten batches wrote."""

VERSION_3: Migration = ("ALTER TABLE batches ADD COLUMN abandoned_at REAL",)
"""When a batch was closed in place of its client."""

MIGRATIONS: tuple[Migration, ...] = (VERSION_1, VERSION_2, VERSION_3)
"""Migration i makes version i + 1 out of version i; none is ever changed once released."""


def open_for_writing(path: str, migrations: Sequence[Migration] = MIGRATIONS) -> sqlite3.Connection:
    """Opens the journal, making or migrating it. Raises StateDirectoryUnusable with the reason and the way out."""
    connection = None
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_MILLISECONDS / 1000
        )
        _prepare(connection, path, migrations)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise unusable(path, error) from error
    except StateDirectoryUnusable:
        if connection is not None:
            connection.close()
        raise
    return connection


def open_for_reading(path: str) -> sqlite3.Connection:
    """Opens the journal read-only. Raises StateDirectoryUnusable: no state here, another schema, damaged."""
    if not os.path.exists(path):
        raise StateDirectoryUnusable(
            f"no state here: {os.path.dirname(path)} holds no {os.path.basename(path)}; "
            "name the right directory with --state"
        )
    connection = None
    try:
        # A quoted URI: `?` and `#` in the directory's name are part of the name.
        uri = "file:" + "".join(c if c not in "?#%" else f"%{ord(c):02x}" for c in os.path.abspath(path)) + "?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_MILLISECONDS / 1000)
        connection.execute("PRAGMA query_only = 1")
        version = _checked_version(connection, path, len(MIGRATIONS))
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise unusable(path, error) from error
    except StateDirectoryUnusable:
        if connection is not None:
            connection.close()
        raise
    if version < len(MIGRATIONS):
        connection.close()
        raise StateDirectoryUnusable(
            f"{path} has schema {version} and this program reads schema {len(MIGRATIONS)}; "
            "'supervisor start' migrates it"
        )
    return connection


def unusable(path: str, error: sqlite3.Error) -> StateDirectoryUnusable:
    """Returns the sentence for a file that SQLite refuses: damaged, not ours, no right, no room."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StateDirectoryUnusable(
            f"the journal {path} is damaged ({error}); move {os.path.basename(path)}, its -wal and its -shm file away "
            "to begin anew (finished outputs stay where they are), restore them from a backup, "
            "or choose another directory with --state"
        )
    return StateDirectoryUnusable(
        f"the journal {path} cannot be opened: {error}; check the rights and the free space of its directory, "
        "or choose another one with --state"
    )


def _prepare(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration]) -> None:
    version = _checked_version(connection, path, len(migrations))
    if version == 0:
        # Both only take effect in a file that has no table yet.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StateDirectoryUnusable(
            f"the file system of {path} cannot hold a write-ahead log (SQLite stays in mode {mode!r}); "
            "choose a directory on a local disk with --state"
        )
    for pragma in (
        "synchronous = FULL",
        f"cache_size = -{CACHE_KIBIBYTES}",
        f"wal_autocheckpoint = {WAL_PAGES}",
        f"journal_size_limit = {WAL_LIMIT_BYTES}",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
    for number in range(version, len(migrations)):
        _migrate(connection, migrations[number], number + 1)


def _checked_version(connection: sqlite3.Connection, path: str, known: int) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StateDirectoryUnusable(
            f"{path} is a SQLite file of another program (application id {application:#x}, not "
            f"{APPLICATION_ID:#x}); choose another directory with --state"
        )
    if version > known:
        raise StateDirectoryUnusable(
            f"{path} has schema {version}, written by a newer version; this program knows schemas up to {known}: "
            "install that newer version again, or choose another directory with --state"
        )
    return version


def _migrate(connection: sqlite3.Connection, migration: Migration, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in migration:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
