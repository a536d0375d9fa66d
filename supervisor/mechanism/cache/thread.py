"""The cache's thread: look-ups first, then what is to be kept, then the upkeep; never in anybody's way.

The loop hands it commands and is told by events. Everything that waits is bounded: look-ups beyond the bound are
misses at once, things to keep beyond it are dropped. A disk that refuses or an index that cannot be opened turns
every look-up into a miss until it works again; an index found damaged is set aside and made anew meanwhile. No
item ever fails for the cache's sake.
"""

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from protocol import messages
from supervisor.mechanism.cache import schema
from supervisor.mechanism.cache.delivering import Deliverer
from supervisor.mechanism.cache.finder import Finder, HashLater
from supervisor.mechanism.cache.gathering import Gathering
from supervisor.mechanism.cache.hashing import Hashing
from supervisor.mechanism.cache.keeper import Keeper
from supervisor.mechanism.cache.memory import TrimLevel
from supervisor.mechanism.cache.outstanding import Outstanding, all_missed, missed
from supervisor.mechanism.cache.store import Store, default_limit
from supervisor.mechanism.cache.upkeep import Rebuild, Sweep
from supervisor.mechanism.cache.verify import Verb
from supervisor.policy.cache.asked import LookedUp, LookUpItems, Made, Stored, StoreItems
from supervisor.policy.cache.settings import CacheSettings

LOOK_UPS_MAX = 50_000
HASHES_MAX = 10_000
VERBS_MAX = 100
PATIENCE_SECONDS = 5.0
"""A look-up that takes longer than most images take to make is a miss."""
SLICE_SECONDS = 0.03
"""How long storing or hashing goes on while look-ups may come."""
FLUSH_SECONDS = 5.0
UPKEEP_SECONDS = 0.1
ROUND_SECONDS = 600.0
RETRY_SECONDS = 10.0
REBUILD_FIRST_SECONDS = 3.0
"""A lost index is rebuilt for so long before anything is looked up in it: a gallery of some 10,000 is then found."""


class CacheThread:
    """Owns the store. `post` is called from the thread, and must be thread safe; `complain` with sentences."""

    def __init__(
        self,
        directory: str,
        settings: CacheSettings,
        state_token: str,
        post: Callable[[LookedUp | Stored], None],
        complain: Callable[[str], None],
    ) -> None:
        """`state_token` is that of the state directory; the store is opened by the thread."""
        self._directory, self._settings, self._state_token = directory, settings, state_token
        self._post, self._complain = post, complain
        self._changed = threading.Condition()
        self._outstanding = Outstanding(LOOK_UPS_MAX)
        self._look_ups: deque[int] = deque()
        self._stores = Gathering()
        self._hashes: deque[tuple[int, HashLater]] = deque()
        self._verbs: deque[tuple[Callable[[Store], Verb[Any]], Callable[[Any], None]]] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cache", daemon=True)
        self._store: Store | None = None
        self._trouble: str | None = None
        self._retry_at = self._flush_at = self._round_at = 0.0
        self._hashing: tuple[int, Hashing] | None = None
        self._verb: tuple[Verb[Any], Callable[[Any], None]] | None = None
        self._versions: dict[str, int] = {}
        self.dropped = 0

    # ---- the loop's side

    def start(self) -> None:
        """Begins; look-ups wait while the index is being opened."""
        self._thread.start()

    def look_up(self, command: LookUpItems) -> None:
        """Answered by LookedUp, in one or more parts. Never blocks."""
        ticket = self._outstanding.add(command, time.monotonic())
        if ticket is None:
            self._post(all_missed(command, {wanted.id for wanted in command.items}))
            return
        with self._changed:
            self._look_ups.append(ticket)
            self._changed.notify()

    def store(self, command: StoreItems) -> None:
        """Answered by Stored. Never blocks; what is too much is dropped."""
        with self._changed:
            before = self._stores.due_at
            left = self._stores.add(command, time.monotonic())
            if self._stores.due_at < before:
                self._changed.notify()
        if left:
            self.dropped += len(left)
            self._post(Stored(batch=command.batch, kept=[], dropped=left))

    def give_up(self, now: float) -> list[LookedUp]:
        """Returns the look-ups that took too long, as misses: to be called by the loop about once a second. `now` is
        monotonic."""
        return self._outstanding.overdue(now - PATIENCE_SECONDS)

    def ask(self, verb: Callable[[Store], Verb[Any]], answer: Callable[[Any], None]) -> bool:
        """Does a verb in pieces between other work; `answer` gets, in the thread, what it returned or the exception
        it raised. False where too many wait."""
        with self._changed:
            if len(self._verbs) >= VERBS_MAX:
                return False
            self._verbs.append((verb, answer))
            self._changed.notify()
        return True

    def stores(self) -> list[messages.Store]:
        """Returns what is held and what waits here, with its limits; figures of another thread, a moment old."""
        level = self._store.memory if self._store is not None else None
        held = [
            ("cache look-ups outstanding", self._outstanding.items, LOOK_UPS_MAX),
            ("results to be cached", len(self._stores), self._stores.limit),
            ("files to be hashed for the cache", len(self._hashes), HASHES_MAX),
            ("verbs for the cache", len(self._verbs), VERBS_MAX),
        ]
        return [
            messages.Store(
                name="cache memory level",
                owner="cache",
                count=len(level) if level is not None else 0,
                limit_count=None,
                bytes=level.bytes if level is not None else 0,
                limit_bytes=level.limit_bytes if level is not None else self._settings.memory_bytes,
            ),
            *(
                messages.Store(name=name, owner="cache", count=count, limit_count=limit, bytes=None, limit_bytes=None)
                for name, count, limit in held
            ),
        ]

    def change(self, limit_bytes: int | None, memory_bytes: int) -> None:
        """Changes what the cache may take on the disk (None: found by itself) and in memory."""

        def tell(store: Store) -> Verb[None]:
            limit = default_limit(self._directory, store.index.bytes) if limit_bytes is None else limit_bytes
            self._settings = msgspec.structs.replace(self._settings, limit_bytes=limit, memory_bytes=memory_bytes)
            store.settings = self._settings
            store.memory.bound(memory_bytes)
            yield

        self.ask(tell, lambda answer: None)

    def retire(self, versions: dict[str, int]) -> None:
        """Says which version each operation has: entries of other versions are found no more, and swept."""

        def tell(store: Store) -> Verb[None]:
            store.retire(versions)
            yield

        self._versions = dict(versions)
        self.ask(tell, lambda answer: None)

    def trim_memory(self, level: TrimLevel, answer: Callable[[Any], None] = lambda freed: None) -> None:
        """Shrinks the memory level to what this tier of clean-up leaves it; `answer` gets the bytes given back, in the
        thread, or the exception, at once where too many wait."""

        def shrink(store: Store) -> Verb[int]:
            yield
            return store.trim_memory(level)

        if not self.ask(shrink, answer):
            answer(TimeoutError("too many wait for the cache already"))

    def hurry(self) -> None:
        """Has the next round of upkeep (what expired, what is of other versions) made now, when nobody waits."""
        with self._changed:
            self._round_at = 0.0
            self._changed.notify()

    def close(self, patience_seconds: float = 5.0) -> None:
        """Keeps what waits to be kept as far as the time allows, closes the index. Harmless when never started."""
        if self._thread.ident is None:
            return
        with self._changed:
            self._closing = True
            self._stores.hurry()
            self._changed.notify()
        self._thread.join(patience_seconds)

    # ---- the thread's side

    def _run(self) -> None:
        while True:
            with self._changed:
                self._wait()
                closing = self._closing
            self._opened()
            busy = self._guarded(self._turn)
            if closing and not (busy and self._stores):
                break
        self._end()

    def _wait(self) -> None:
        """Until there is something to do; with the condition held."""
        until = time.monotonic() + self._pause()
        while not self._awake():
            left = min(until, self._stores.due_at) - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _awake(self) -> bool:
        waiting = self._look_ups or self._verbs or self._hashes or self._hashing or self._verb
        return bool(waiting or self._closing or self._stores.due(time.monotonic()))

    def _pause(self) -> float:
        if self._rebuilds_first():
            return 0.0
        return UPKEEP_SECONDS if self._round_at <= time.monotonic() else FLUSH_SECONDS

    def _turn(self, store: Store) -> bool:
        """Everything once, in the order of who waits for it; returns whether there was anything."""
        if self._rebuilds_first():
            self._rebuild.turn()
            store.commit()
            return True
        busy = self._look(store)
        busy = self._hash(store) or busy
        busy = self._keep(store) or busy
        busy = self._answer_verbs(store) or busy
        now = time.monotonic()
        if now >= self._flush_at:
            store.index.write_touched()
            self._flush_at = now + FLUSH_SECONDS
        if not busy and now >= self._round_at:
            self._maintain(now)
        store.commit()
        self._recovered()
        return busy

    def _rebuilds_first(self) -> bool:
        return self._store is not None and self._rebuild.needed and time.monotonic() < self._rebuild_first_until

    def _look(self, store: Store) -> bool:
        any_one = False
        while self._look_ups:
            ticket = self._look_ups.popleft()
            any_one = True
            command = self._outstanding.command(ticket)
            if command is None:
                continue
            try:
                answers = self._finder.look_up(command)
            except Exception:
                self._tell(self._outstanding.answer(ticket, [], missed(command)))
                raise
            self._tell(self._outstanding.answer(ticket, answers.hits, answers.misses))
            for later in answers.hash_later:
                if len(self._hashes) < HASHES_MAX:
                    self._hashes.append((ticket, later))
                else:
                    self._tell(self._outstanding.answer(ticket, [], missed(command, later.wanted.id)))
        return any_one

    def _hash(self, store: Store) -> bool:
        until = time.monotonic() + SLICE_SECONDS
        worked = False
        while (self._hashing or self._hashes) and time.monotonic() < until and not self._look_ups:
            if self._hashing is None:
                ticket, later = self._hashes.popleft()
                self._hashing = ticket, Hashing(later)
            ticket, hashing = self._hashing
            worked = True
            if self._outstanding.command(ticket) is None:
                hashing.close()
                self._hashing = None
                continue
            hashing.step()
            if hashing.done:
                self._hashing = None
                answers = self._finder.resolve(hashing.later, hashing.content)
                self._tell(self._outstanding.answer(ticket, answers.hits, answers.misses))
        return worked

    def _keep(self, store: Store) -> bool:
        if not self._stores.due(time.monotonic()):
            return False
        until = time.monotonic() + SLICE_SECONDS
        told: dict[str, Stored] = {}
        taken: list[tuple[StoreItems, Made]] = []
        try:
            while self._stores and time.monotonic() < until and not self._look_ups:
                command, made = self._take()
                taken.append((command, made))
                kept = self._keeper.keep(command, made)
                answer = told.setdefault(command.batch, Stored(batch=command.batch, kept=[], dropped=[]))
                (answer.kept if kept else answer.dropped).append(made.id)
            if taken:
                store.commit()
        except Exception:
            for batch in {command.batch for command, _ in taken}:
                lost = [made.id for command, made in taken if command.batch == batch]
                self._post(Stored(batch=batch, kept=[], dropped=lost))
            self.dropped += len(taken)
            raise
        for answer in told.values():
            self._post(answer)
        return bool(taken)

    def _take(self) -> tuple[StoreItems, Made]:
        with self._changed:
            return self._stores.take()

    def _answer_verbs(self, store: Store) -> bool:
        if self._verb is None and self._verbs:
            make, answer = self._verbs.popleft()
            self._verb = make(store), answer
        if self._verb is None:
            return False
        verb, answer = self._verb
        try:
            next(verb)
        except StopIteration as stop:
            self._verb = None
            store.commit()
            answer(stop.value)
        except Exception as error:
            self._verb = None
            answer(error)
            raise
        return True

    def _maintain(self, now: float) -> None:
        if self._rebuild.needed:
            self._rebuild.turn()
        elif not self._sweep.turn():
            self._round_at = now + ROUND_SECONDS

    # ---- opening, failing, ending

    def _opened(self) -> None:
        """Opens the store if it is not; tells once why it cannot be."""
        now = time.monotonic()
        if self._store is not None or now < self._retry_at:
            return
        try:
            self._store = Store(self._directory, self._settings, self._complain)
            self._deliverer = Deliverer(self._directory, self._state_token, self._store.cloner)
            self._begin(self._store)
        except (OSError, sqlite3.Error, schema.Damaged) as error:
            self._lose_store()
            self._retry_at = now + RETRY_SECONDS
            self._told(f"the cache in {self._directory} cannot be opened ({error}): everything is made afresh")

    def _begin(self, store: Store) -> None:
        store.retire(self._versions)
        self._finder, self._keeper = Finder(store, self._deliverer), Keeper(store)
        self._rebuild, self._sweep = Rebuild(store), Sweep(store)
        self._rebuild_first_until = time.monotonic() + REBUILD_FIRST_SECONDS
        self._round_at = 0.0

    def _guarded(self, turn: Callable[[Store], bool]) -> bool:
        """Takes a turn; whatever goes wrong costs cached results at most."""
        store = self._store
        if store is None:
            self._refuse_all()
            return False
        try:
            return turn(store)
        except (sqlite3.Error, OSError) as error:
            self._recover(store, error)
        except Exception as error:  # a bug of ours must not end the thread: items wait for its answers
            with contextlib.suppress(sqlite3.Error):
                store.roll_back()
            self._told(f"the cache failed: {type(error).__name__}: {error}")
        return True

    def _recover(self, store: Store, error: Exception) -> None:
        try:
            if isinstance(error, sqlite3.Error) and schema.is_damage(error):
                store.reopen_damaged(str(error))
                self._begin(store)
                return
            store.roll_back()
            self._told(f"the cache in {self._directory} cannot keep anything now: {error}")
        except (sqlite3.Error, OSError, schema.Damaged) as again:
            self._lose_store()
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._told(f"the cache in {self._directory} cannot be used now: {again}")

    def _lose_store(self) -> None:
        # What was half done goes with the store: kept, it would wake the thread again and again until it is back.
        if self._hashing is not None:
            ticket, hashing = self._hashing
            hashing.close()
            self._hashing = None
            self._tell(self._outstanding.answer(ticket, [], missed(hashing.later.command, hashing.later.wanted.id)))
        if self._verb is not None:
            _, answer = self._verb
            self._verb = None
            answer(OSError(f"the cache in {self._directory} was lost meanwhile"))
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error):
                self._store.index.abandon()
            self._store = None

    def _refuse_all(self) -> None:
        while self._look_ups:
            ticket = self._look_ups.popleft()
            if (command := self._outstanding.command(ticket)) is not None:
                self._tell(self._outstanding.answer(ticket, [], missed(command)))
        while self._hashes:
            ticket, later = self._hashes.popleft()
            self._tell(self._outstanding.answer(ticket, [], missed(later.command, later.wanted.id)))
        while self._stores:
            made_by, made = self._take()
            self.dropped += 1
            self._post(Stored(batch=made_by.batch, kept=[], dropped=[made.id]))
        while self._verbs:
            _, answer = self._verbs.popleft()
            answer(OSError(f"the cache in {self._directory} cannot be opened"))

    def _told(self, sentence: str) -> None:
        if self._trouble != sentence:
            self._trouble = sentence
            self._complain(sentence)

    def _recovered(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._complain("the cache works again")

    def _tell(self, event: LookedUp | None) -> None:
        if event is not None:
            self._post(event)

    def _end(self) -> None:
        if self._hashing is not None:
            self._hashing[1].close()
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error, OSError):
                self._store.close()
            self._deliverer.close()
        self._store = None
        self._refuse_all()
