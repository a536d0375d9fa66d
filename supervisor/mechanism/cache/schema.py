"""The shape of `cache.db`, which is disposable: whatever is wrong with it, it is set aside and begun anew.

An entry takes about 150 bytes beside its value. The tables have no rowid where their key is random, so a key is
kept once; content hashes are uniform, so a random place in the key is a fair sample of all entries, and no
policy needs a list of them. Inline values have a table of their own: dozens of entries fit a page without them,
and looking one up mostly reads no value. `placed` and `shortcuts` save reading: which outputs stand where, and
which content a file had when all of its stat was the same.
"""

import contextlib
import os
import sqlite3

INDEX_FILE = "cache.db"
APPLICATION_ID = 0x47534331
"""Four bytes in the file's header ("GSC1")."""
SCHEMA_VERSION = 1
CACHE_KIBIBYTES = 8192
WAL_PAGES = 2000
BUSY_MILLISECONDS = 2000
DAMAGED_KEPT = 2
"""Damaged files set aside that stay, for whoever wants to look into them."""

TABLES = (
    """CREATE TABLE steps(number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, operation TEXT NOT NULL,
        version INTEGER NOT NULL)""",
    """CREATE TABLE entries(content BLOB NOT NULL, step INTEGER NOT NULL, bytes INTEGER NOT NULL,
        cost_us INTEGER NOT NULL, made INTEGER NOT NULL, seen INTEGER NOT NULL, hits INTEGER NOT NULL,
        inline INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY(content, step)) WITHOUT ROWID""",
    "CREATE TABLE inlines(number INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    """CREATE TABLE shortcuts(device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, content BLOB NOT NULL, seen INTEGER NOT NULL,
        PRIMARY KEY(device, inode)) WITHOUT ROWID""",
    "CREATE TABLE placed(key INTEGER PRIMARY KEY, stats BLOB NOT NULL, seen INTEGER NOT NULL)",
    "CREATE TABLE sizes(size INTEGER PRIMARY KEY)",
    """CREATE TABLE tallies(step INTEGER NOT NULL, policy TEXT NOT NULL, hits INTEGER NOT NULL,
        first_sights INTEGER NOT NULL, missed_again INTEGER NOT NULL, stored INTEGER NOT NULL,
        culled INTEGER NOT NULL, PRIMARY KEY(step, policy)) WITHOUT ROWID""",
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
)


class Damaged(Exception):
    """The index cannot be trusted; the message says what was found."""


def is_damage(error: sqlite3.Error) -> bool:
    """Tells whether the file itself is at fault, not the disk it is on."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # A table or column that is missing (SQLITE_ERROR) is a damaged schema page: our statements are fixed.
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR)


def open_index(path: str) -> sqlite3.Connection:
    """Opens or makes the index. Raises Damaged, and sqlite3.Error where the disk refuses."""
    _check_length(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MILLISECONDS / 1000)
    try:
        _prepare(connection)
    except sqlite3.Error as error:
        connection.close()
        if is_damage(error):
            raise Damaged(str(error)) from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: str) -> sqlite3.Connection:
    """Opens the index read-only. Raises sqlite3.Error, and Damaged where it is of another shape."""
    uri = "file:" + "".join(c if c not in "?#%" else f"%{ord(c):02x}" for c in os.path.abspath(path)) + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_MILLISECONDS / 1000)
    try:
        connection.execute("PRAGMA query_only = 1")
        _check_shape(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def set_aside(path: str, now: float) -> str:
    """Renames a damaged index, its log and its shared memory away; returns the index's new name."""
    new = f"{path}.damaged-{int(now)}"
    number = 0
    while os.path.lexists(new):
        number += 1
        new = f"{path}.damaged-{int(now)}-{number}"
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + ending, new + ending)
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, new)
    _keep_newest(path)
    return new


def check(connection: sqlite3.Connection) -> str:
    """Returns `ok`, or the first thing that SQLite finds wrong."""
    try:
        found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        return str(error)
    return found


def _prepare(connection: sqlite3.Connection) -> None:
    fresh = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if fresh and connection.execute("PRAGMA page_count").fetchone()[0] > 1:
        raise Damaged("its schema is gone")
    if not fresh:
        _check_shape(connection)
        if (found := check(connection)) != "ok":
            raise Damaged(found)
    else:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    for pragma in (
        "synchronous = NORMAL",
        f"cache_size = -{CACHE_KIBIBYTES}",
        f"wal_autocheckpoint = {WAL_PAGES}",
        "journal_size_limit = 16777216",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
    if fresh:
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            connection.execute(table)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")


def _check_length(path: str) -> None:
    """A file cut inside its last page reads as zeros there, which SQLite's own check lets pass. Raises Damaged.

    With a log beside it the file may be short for good reason: its last pages are in the log.
    """
    try:
        if os.path.exists(path + "-wal") and os.path.getsize(path + "-wal"):
            return
        with open(path, "rb") as file:
            header = file.read(100)
        length = os.path.getsize(path)
    except OSError:
        return  # it is not there yet, or SQLite will say better what is the matter
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        return
    page = int.from_bytes(header[16:18], "big")
    wanted = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    if length < wanted:
        raise Damaged(f"it has {length:,} of its {wanted:,} bytes")


def _check_shape(connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID or version != SCHEMA_VERSION:
        raise Damaged(f"its application id is {application:#x} and its schema {version}, not ours")


def _keep_newest(path: str) -> None:
    directory, name = os.path.split(path)
    aside = [entry for entry in os.listdir(directory) if entry.startswith(name + ".damaged-")]
    indexes = [entry for entry in aside if not entry.endswith(("-wal", "-shm"))]
    indexes.sort(key=lambda entry: os.lstat(os.path.join(directory, entry)).st_ctime_ns)
    for old in indexes[:-DAMAGED_KEPT]:
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, old + ending))
