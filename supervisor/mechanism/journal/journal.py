"""The journal's thread: takes what waits, commits it as a group, tells the outcome; retries for ever.

A command stays in memory until its commit succeeded. While the disk refuses, the thread says so once and
tries again with growing pauses; a group that fails for another reason is taken apart, so that the command at
fault is refused alone (or, where nobody waits for an answer, kept and told as a stall: dropping it would
lose what was accepted).

Settlements with outputs pass through the sync thread first; everything else comes here at once.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from protocol.errors import Fault, MachineError
from protocol.messages import AnyAnswer, Problem, Progress, Results, Store
from supervisor.mechanism.journal import batches, items, queries, schema
from supervisor.mechanism.journal.records import single
from supervisor.mechanism.journal.stalls import FIRST_DELAY_SECONDS, Stalls, longer
from supervisor.mechanism.journal.sync import SyncThread
from supervisor.mechanism.journal.writer import JournalCommand, Queued, Writer, rows_of
from supervisor.policy.commands import (
    ChargeItems,
    CreateBatch,
    ForgetQuarantine,
    InsertItems,
    Note,
    Query,
    RetryItems,
    SealBatch,
    SettleItems,
    SweepRetention,
)
from supervisor.policy.events import AnyEvent, JournalRefused, Recovered
from supervisor.policy.items import Item

JOURNAL_FILE = "queue.db"
COMMANDS_A_GROUP = 256
ROWS_A_GROUP = 20_000
"""A transaction stays some 50 ms long at most."""
QUERIES_MAX = 1_000
"""Readers that may wait; further ones are told to come again."""
NOTES_MAX = 10_000
"""Commands that may wait before decisions, which nobody waits for, are dropped: while a disk refuses, notes go on."""
QUERIES_A_TURN = 8
"""Readers wait for writers and writers for readers, neither for long."""
LINGER_SECONDS = 0.005
"""Verdicts, which nobody waits for, wait so long for others to share their commit: a commit costs the same for one
row as for a hundred. Whatever is answered is committed at once, and takes them along."""
LINGER_COMMANDS = 128
TURN_AWAY_DELAY_SECONDS = 1.0
"""Who asked is told when a disk refuses for so long between two tries, some 2 s after it began; verdicts wait."""
PATIENCE_SECONDS = 10.0
"""How long `close` waits for a disk that refuses."""


_ASKED = (CreateBatch, SealBatch, RetryItems, ForgetQuarantine)
"""What clients may ask any number of times; chunks are bounded by the policy (`inserts_max`)."""
_PATIENT = (SettleItems, ChargeItems, SweepRetention, Note)
"""What is kept without an answer, or with one that only frees memory."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a Query, to be sent to the client."""

    peer: bytes
    answer: AnyAnswer


class Journal:
    """Keeps the queue on disk. `post` is called from the journal's threads with each event or answer and must be
    thread safe; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        directory: str,
        post: Callable[[AnyEvent | Answered], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = os.path.join(directory, JOURNAL_FILE)
        self._post = post
        self._clock = clock
        self._stalls = Stalls(post)
        self._sync = SyncThread(self._enqueue, self._stalls)
        self._changed = threading.Condition()
        self._commands: deque[Queued] = deque()
        self._queries: deque[Query] = deque()
        self._closing = False
        self._release: threading.Event | None = None
        self._patience_over = False
        self._in_hand = 0
        self._notes_dropped = 0
        self._waiting: Literal["no", "for work", "for company"] = "no"
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._connection: sqlite3.Connection | None = None
        self._writer: Writer | None = None

    def keep_decisions(self, count: int) -> None:
        """Changes how many decisions are kept on the disk. Before `start`, or from the loop's thread."""
        assert self._writer is not None
        self._writer.decisions_kept = count

    def stores(self, verdicts: Store) -> list[Store]:
        """Returns what waits here, with its limits. `verdicts` are those on their way to the disk as the policy lets
        them come: outputs to be synced are a part of them, and the mailbox may hold them all beside the rest."""
        most = NOTES_MAX + (verdicts.limit_count or 0)
        return [
            Store(name="journal mailbox", owner="journal", count=self.backlog, limit_count=most, bytes=None,
                  limit_bytes=None),
            Store(name="readers of the journal", owner="journal", count=len(self._queries), limit_count=QUERIES_MAX,
                  bytes=None, limit_bytes=None),
            Store(name="outputs to be synced", owner="journal", count=self._sync.backlog,
                  limit_count=verdicts.limit_count, bytes=None, limit_bytes=verdicts.limit_bytes),
        ]  # fmt: skip

    @property
    def backlog(self) -> int:
        """Commands that wait or are being committed."""
        return len(self._commands) + self._in_hand

    def open(self) -> Recovered:
        """Makes, migrates or refuses the file and reads the unfinished batches. Call it with the state directory
        locked. Raises StateDirectoryUnusable with the reason and the way out."""
        connection = schema.open_for_writing(self._path)
        try:
            clean = single(connection, "SELECT value FROM meta WHERE key = 'clean_stop'") != "0"
            records = batches.unfinished(connection)
            self._writer = Writer(connection)
        except sqlite3.Error as error:
            connection.close()
            raise schema.unusable(self._path, error) from error
        self._connection = connection
        return Recovered(records=records, in_progress=[], clean=clean)

    def recover_in_progress(self, item_ids: list[int]) -> list[Item]:
        """After an unclean stop: counts one more against those of these items that are pending, and returns them
        as they now stand. To be called between `open` and `start`."""
        assert self._connection is not None
        assert not self._thread.is_alive()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            items.raise_unclean_stops(self._connection, item_ids)
            self._connection.execute("COMMIT")
            return items.read_items(self._connection, item_ids)
        except sqlite3.Error as error:
            raise schema.unusable(self._path, error) from error

    def start(self) -> None:
        """Starts the threads. From here on, only `close` makes it a clean stop."""
        assert self._connection is not None
        try:
            _mark(self._connection, clean=False)
        except sqlite3.Error as error:
            raise schema.unusable(self._path, error) from error
        self._thread.start()
        self._sync.start()

    def submit(self, command: JournalCommand | Query) -> None:
        """Takes a command; never blocks. Its outcome is posted after the commit."""
        if isinstance(command, SettleItems) and any(each.written for each in command.settlements):
            self._sync.submit(command)
        elif isinstance(command, Query):
            self._ask(command)
        elif isinstance(command, Note) and self.backlog >= NOTES_MAX:
            self._notes_dropped += 1
        elif isinstance(command, _ASKED) and self.backlog >= NOTES_MAX:
            self._post(_busy(command))
        else:
            if isinstance(command, Note) and self._notes_dropped:
                dropped, self._notes_dropped = self._notes_dropped, 0
                message = f"{dropped:,} decisions before this one were not kept: the disk was too slow for them"
                self._enqueue(Note(kind="notes_dropped", message=message, figures={"decisions": dropped}))
            self._enqueue(command)

    def _ask(self, query: Query) -> None:
        with self._changed:
            if len(self._queries) < QUERIES_MAX:
                self._queries.append(query)
                self._changed.notify()
                return
        message = f"{QUERIES_MAX:,} readers wait for the journal already; try again in a moment"
        problem = Problem(id=query.request.id, code="busy", fault="machine", message=message, exit_code=4)
        self._post(Answered(peer=query.peer, answer=problem))

    def close(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Commits everything submitted, marks the stop as clean, joins the threads. Raises MachineError when the
        disk refuses for longer than `patience_seconds`: what was acknowledged is safe, the rest is counted."""
        if self._connection is None:
            return
        if self._thread.ident is None:
            self._connection.close()
            return
        unsynced = self._sync.close(patience_seconds)
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience_seconds)
        with self._changed:
            self._patience_over = True
            self._changed.notify()
        self._thread.join()
        lost = unsynced + self.backlog
        reason = "the disk refused them" if lost else self._finish()
        self._connection.close()
        self._connection = None
        if reason is not None:
            raise MachineError(
                f"the journal {self._path} was closed with {lost} changes not committed ({reason}); "
                "nothing acknowledged is lost, and what was not is done again after a restart: free some space first"
            )

    def _finish(self) -> str | None:
        assert self._connection is not None
        try:
            items.forget_unclean_stops(self._connection)
            _mark(self._connection, clean=True)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            return str(error)
        return None

    def release_memory(self) -> threading.Event:
        """Has SQLite give back what it can; the event is set when it did. Never blocks."""
        with self._changed:
            released = self._release = self._release or threading.Event()
            self._changed.notify()
        return released

    def _enqueue(self, command: JournalCommand) -> None:
        with self._changed:
            self._commands.append((command, self._clock()))
            # A thread that is woken for nothing takes the interpreter from the loop.
            if self._waiting == "for work" or (self._waiting == "for company" and self._hurries(command)):
                self._changed.notify()

    def _hurries(self, command: JournalCommand) -> bool:
        return not isinstance(command, _PATIENT) or len(self._commands) >= LINGER_COMMANDS

    def _run(self) -> None:
        while True:
            with self._changed:
                self._waiting = "for work"
                self._changed.wait_for(lambda: self._commands or self._queries or self._closing or self._release)
                self._linger()
                self._waiting = "no"
                group = self._take_group()
                asked = self._take_queries()
                release, self._release = self._release, None
            if release is not None:
                self._shrink(release)
            elif not group and not asked:
                return
            if group and not self._commit(group):
                return
            for query in asked:
                self._answer(query)

    def _shrink(self, released: threading.Event) -> None:
        """A connection that cannot even do this will say so at the next commit."""
        assert self._connection is not None
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA shrink_memory")
        released.set()

    def _linger(self) -> None:
        """Waits for more, while all that is here can wait."""
        if len(self._commands) >= LINGER_COMMANDS or self._queries or self._closing:
            return
        if all(isinstance(command, _PATIENT) for command, _ in self._commands):
            self._waiting = "for company"
            self._changed.wait(LINGER_SECONDS)

    def _take_queries(self) -> list[Query]:
        return [self._queries.popleft() for _ in range(min(QUERIES_A_TURN, len(self._queries)))]

    def _take_group(self) -> list[Queued]:
        group: list[Queued] = []
        rows = 0
        while self._commands and len(group) < COMMANDS_A_GROUP:
            rows += rows_of(self._commands[0][0])
            if group and rows > ROWS_A_GROUP:
                break
            group.append(self._commands.popleft())
        self._in_hand = len(group)
        return group

    def _commit(self, group: list[Queued]) -> bool:
        """Returns False when it gave up, because the journal is being closed and the disk still refuses."""
        assert self._writer is not None
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                events = self._writer.execute(group)
            except sqlite3.Error as error:
                fault, ours = _reason(self._path, error), _is_ours(error)
            except Exception as error:
                fault, ours = f"{type(group[0][0]).__name__}: {error!r}", True
            else:
                self._in_hand -= len(group)
                self._stalls.end("journal")
                for event in events:
                    self._post(event)
                if self._writer.sweep_goes_on:
                    self._sweep_on(group)
                return True
            if ours and len(group) > 1:
                return all(self._commit([one]) for one in group)
            if ours and self._refuse(group[0], fault):
                return True
            self._stalls.begin("journal", fault)
            if delay >= TURN_AWAY_DELAY_SECONDS and not (group := self._turn_away(group, fault)):
                return True
            if not self._pause(delay):
                return False
            delay = longer(delay)

    def _sweep_on(self, group: list[Queued]) -> None:
        """The next step of a sweep stands behind all that has come meanwhile; a journal that is closed is left so."""
        with self._changed:
            waiting = any(isinstance(command, SweepRetention) for command, _ in self._commands)
            if not self._closing and not waiting:
                self._commands += [queued for queued in group if isinstance(queued[0], SweepRetention)][-1:]

    def _pause(self, seconds: float) -> bool:
        """Waits, answering readers meanwhile; returns False when there is no time left to wait."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait_for(lambda: self._queries or self._patience_over, left)
                if self._patience_over:
                    return False
                asked = self._take_queries()
            for query in asked:
                self._answer(query)
        return True

    def _turn_away(self, group: list[Queued], fault: str) -> list[Queued]:
        """Refuses the clients' requests of the group and behind it; returns what of the group waits for the disk."""
        with self._changed:
            behind = list(self._commands)
            self._commands = deque(queued for queued in behind if not _asked_for(queued[0]))
        message = f"nothing can be accepted: the journal cannot be written ({fault})"
        for command, _ in [*group, *behind]:
            if _asked_for(command):
                self._post(_refusal(command, "busy", message, "machine"))
        left = [queued for queued in group if not _asked_for(queued[0])]
        self._in_hand -= len(group) - len(left)
        return left

    def _refuse(self, queued: Queued, fault: str) -> bool:
        command, _ = queued
        if isinstance(command, Note | SweepRetention):
            # A decision is told, not promised, and a sweep comes again: what cannot be kept of them stops nothing.
            self._in_hand -= 1
            return True
        if not _asked_for(command):
            return False
        self._in_hand -= 1
        self._post(_refusal(command, "journal", f"the journal cannot keep this: {fault}", "caller"))
        return True

    def _answer(self, query: Query) -> None:
        assert self._connection is not None
        assert self._writer is not None
        if isinstance(query.request, Progress | Results):
            self._writer.looked_at(query.request.batch, self._clock())
        answer: AnyAnswer
        try:
            answer = queries.answer(self._connection, query.request, query.live)
        except Exception as error:
            # A reader never stops the writer: a damaged page or a value no decoder takes is this answer's trouble.
            message = f"the journal {self._path} cannot answer {type(query.request).__name__}: {error!r}"
            fault: Literal["machine", "ours"] = "machine" if isinstance(error, sqlite3.Error) else "ours"
            answer = Problem(id=query.request.id, code="journal", fault=fault, message=message)
        self._post(Answered(peer=query.peer, answer=answer))


def _asked_for(command: JournalCommand) -> bool:
    """Whether a client waits for the answer."""
    return getattr(command, "peer", None) is not None and getattr(command, "request_id", None) is not None


def _refusal(command: Any, code: str, message: str, fault: Fault) -> JournalRefused:
    return JournalRefused(
        peer=command.peer,
        request_id=command.request_id,
        code=code,
        message=message,
        was_insert=isinstance(command, InsertItems),
        fault=fault,
    )


def _mark(connection: sqlite3.Connection, *, clean: bool) -> None:
    connection.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('clean_stop', ?)", ("1" if clean else "0",))


_FAULTS_OF_OURS = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_RANGE,
)


def _is_ours(error: sqlite3.Error) -> bool:
    """Tells whether the statement or its values are at fault, not the disk or the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _FAULTS_OF_OURS


def _reason(path: str, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return f"the journal {path} cannot commit: {error}{f' ({name})' if name else ''}"


def _busy(command: CreateBatch | SealBatch | RetryItems | ForgetQuarantine) -> JournalRefused:
    message = f"{NOTES_MAX:,} changes wait for the disk already; try again in a moment"
    return JournalRefused(
        peer=command.peer, request_id=command.request_id, code="busy", message=message, fault="machine"
    )
