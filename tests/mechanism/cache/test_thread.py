"""The thread answers everything, whatever state the disk and the index are in, and stops for nobody."""

import hashlib
import shutil
import sqlite3
import threading
import time
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor.mechanism.cache import gathering
from supervisor.mechanism.cache import thread as thread_module
from supervisor.mechanism.cache.finder import Finder, HashLater, stamp_of
from supervisor.mechanism.cache.hashing import Hashing
from supervisor.mechanism.cache.store import Store
from supervisor.mechanism.cache.verify import Verb, verifying
from supervisor.policy.cache.asked import LookedUp, Stored, StoreItems
from tests.mechanism.cache.bed import THUMBS, Bed, Threaded, wait_until


def prepared(tmp_path: Path, *names: str) -> Bed:
    """A bed with images, its cache closed so that a thread can own it."""
    bed = Bed(tmp_path)
    bed.close()
    for name in names:
        bed.image(name)
    return bed


def store_items(bed: Bed, *names: str) -> StoreItems:
    made = [bed.made(name, number=number) for number, name in enumerate(names)]
    return StoreItems(batch="b", out=bed.out_token, steps=(THUMBS,), items=made)


def answered(threaded: Threaded, count: int) -> tuple[set[int], set[int]]:
    """Waits until so many items were answered; returns (hits, misses)."""
    hits: set[int] = set()
    misses: set[int] = set()
    while len(hits) + len(misses) < count:
        event = threaded.event()
        assert isinstance(event, LookedUp)
        hits |= {hit.id for hit in event.hits}
        misses |= {miss.id for miss in event.misses}
    assert len(hits) + len(misses) == count
    return hits, misses


def test_a_damaged_index_is_rebuilt_before_anything_is_looked_up_in_it(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for name in names:
        bed.image(name)
        bed.keep(bed.made(name, 40_000))
    bed.close()
    for output in bed.out.iterdir():
        output.unlink()
    (bed.cache / "cache.db").write_bytes(b"no database any more" * 1000)
    threaded = Threaded(bed)
    threaded.thread.look_up(bed.wanted(*names))
    threaded.thread.start()
    assert answered(threaded, 3) == ({0, 1, 2}, set()), "every image is found by its content"
    threaded.thread.close()


def test_what_was_never_made_counts_as_missed(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg", "b.jpg")
    threaded = Threaded(bed)
    threaded.thread.start()
    threaded.thread.look_up(bed.wanted("a.jpg", "b.jpg"))
    assert answered(threaded, 2) == (set(), {0, 1})
    threaded.thread.close()
    bed.open()
    assert (bed.store.stats().hits, bed.store.stats().misses) == (0, 2)
    assert [tally.first_sights for tally in bed.store.step_tallies()] == [2]
    bed.close()


def test_the_whole_way(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    threaded = Threaded(bed)
    threaded.thread.start()
    threaded.thread.look_up(bed.wanted("a.jpg", "b.jpg", "c.jpg"))
    assert answered(threaded, 3) == (set(), {0, 1, 2})
    threaded.thread.store(store_items(bed, "a.jpg", "b.jpg"))
    assert threaded.event() == Stored(batch="b", kept=[0, 1], dropped=[])
    for output in bed.out.iterdir():
        output.unlink()
    content = (bed.images / "b.jpg").read_bytes()
    bed.image("copy.jpg", content)
    threaded.thread.look_up(bed.wanted("a.jpg", "b.jpg", "c.jpg", "copy.jpg"))
    assert answered(threaded, 4) == ({0, 1, 3}, {2})
    assert (bed.out / "copy.jpg.1024.webp").read_bytes() == bed.right("b.jpg")["b.jpg.1024.webp"]
    threaded.thread.close()
    bed.open()
    assert bed.store.stats().entries == 2 and bed.said == []
    bed.close()


def test_identical_items_are_told_by_their_identity(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg")
    bed.image("b.jpg", b"b")
    threaded = Threaded(bed)
    threaded.thread.start()
    threaded.thread.look_up(bed.wanted("a.jpg", "a.jpg", "b.jpg"))
    told: dict[int, bytes] = {}
    while len(told) < 3:  # files of one size are hashed first, and told later
        event = threaded.event()
        assert isinstance(event, LookedUp)
        told |= {miss.id: miss.identity for miss in event.misses}
    first, second, third = (told[number] for number in sorted(told))
    assert first == second != third
    threaded.thread.close()


def test_an_index_that_turns_out_damaged_while_running_is_set_aside(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg", "b.jpg")
    threaded = Threaded(bed)
    threaded.thread.start()
    threaded.thread.store(store_items(bed, "a.jpg"))
    threaded.event()

    def damage(store: Store) -> Verb[None]:
        yield
        raise error

    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    answers: list[Any] = []
    assert threaded.thread.ask(damage, answers.append)
    wait_until(lambda: any("set aside" in sentence for sentence in threaded.said), "the index set aside")
    assert answers == [error]
    wait_until(lambda: any("1 entries" in sentence for sentence in threaded.said), "the index made anew")
    for output in bed.out.iterdir():
        output.unlink()
    threaded.thread.look_up(bed.wanted("a.jpg", "b.jpg"))
    assert answered(threaded, 2) == ({0}, {1}), "known by its content again"
    threaded.thread.close()


def test_a_cache_that_cannot_be_opened_is_a_cache_without_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_module, "RETRY_SECONDS", 0.05)
    bed = prepared(tmp_path, "a.jpg")
    shutil.rmtree(bed.cache)
    bed.cache.write_bytes(b"a file in the way")
    threaded = Threaded(bed)
    threaded.thread.start()
    threaded.thread.look_up(bed.wanted("a.jpg"))
    assert answered(threaded, 1) == (set(), {0})
    threaded.thread.store(store_items(bed, "a.jpg"))
    assert threaded.event() == Stored(batch="b", kept=[], dropped=[0])
    assert len(threaded.said) == 1 and "cannot be opened" in threaded.said[0], "told once"
    bed.cache.unlink()

    def kept() -> bool:
        threaded.thread.store(store_items(bed, "a.jpg"))
        return bool(threaded.event().kept)

    wait_until(kept, "the cache opened after all")
    assert threaded.said[-1] == "the cache works again"
    threaded.thread.close()


def test_a_stalled_disk_holds_no_item_up_and_late_answers_are_dropped(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg")
    threaded = Threaded(bed)
    threaded.thread.start()
    stalled, go_on = threading.Event(), threading.Event()

    def stall(store: Store) -> Verb[None]:
        stalled.set()
        go_on.wait(20)
        yield

    threaded.thread.ask(stall, lambda answer: None)
    assert stalled.wait(20)
    threaded.thread.look_up(bed.wanted("a.jpg"))
    assert threaded.thread.give_up(time.monotonic()) == [], "not yet"
    [late] = threaded.thread.give_up(time.monotonic() + thread_module.PATIENCE_SECONDS + 1)
    assert [miss.id for miss in late.misses] == [0]
    go_on.set()
    threaded.thread.look_up(bed.wanted("a.jpg"))
    assert answered(threaded, 1) == (set(), {0})
    threaded.thread.close()
    assert threaded.events.empty(), "the first one was answered once"


def test_too_much_is_answered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_module, "LOOK_UPS_MAX", 1)
    monkeypatch.setattr(gathering, "STORES_MAX", 1)
    bed = prepared(tmp_path, "a.jpg", "b.jpg")
    threaded = Threaded(bed)
    threaded.thread.look_up(bed.wanted("a.jpg", "b.jpg"))
    assert answered(threaded, 2) == (set(), {0, 1})
    threaded.thread.store(store_items(bed, "a.jpg", "b.jpg"))
    assert threaded.event() == Stored(batch="b", kept=[], dropped=[1])
    threaded.thread.start()
    assert threaded.event() == Stored(batch="b", kept=[0], dropped=[])
    threaded.thread.close()


def test_what_is_made_is_gathered_until_it_is_many_or_nothing_more_comes(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg", "b.jpg")
    first, second = (msgspec.structs.replace(store_items(bed, name), more_to_come=True) for name in ("a.jpg", "b.jpg"))
    waiting = gathering.Gathering()
    assert waiting.due_at == inf
    assert waiting.add(first, 5.0) == [] and waiting.add(second, 5.5) == []
    assert waiting.due_at == 5.0 + gathering.GATHER_SECONDS, "the first one's time counts"
    waiting.add(msgspec.structs.replace(second, more_to_come=False), 5.6)
    assert waiting.due_at == 5.6
    assert waiting.add(first, 5.7) == [] and waiting.due_at == 5.6, "those before it are not held up"
    assert [waiting.take()[0] for _ in range(3)][:2] == [first, second] and waiting.due_at == 5.6
    waiting.take()
    assert waiting.due_at == inf and len(waiting) == 0
    for _ in range(gathering.GATHER_ITEMS):
        waiting.add(first, 6.0)
    assert waiting.due_at == 6.0


def test_what_is_gathered_is_kept_soon_although_nothing_follows(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg", "b.jpg")
    threaded = Threaded(bed)
    threaded.thread.start()
    threaded.thread.store(msgspec.structs.replace(store_items(bed, "a.jpg"), more_to_come=True))
    assert threaded.event() == Stored(batch="b", kept=[0], dropped=[])
    threaded.thread.store(msgspec.structs.replace(store_items(bed, "b.jpg"), more_to_come=True))
    threaded.thread.close()
    assert threaded.event() == Stored(batch="b", kept=[0], dropped=[]), "a stop keeps what was gathered"


def test_a_bug_in_an_answer_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = prepared(tmp_path, "a.jpg")
    threaded = Threaded(bed)

    def broken(self: object, command: object) -> None:
        raise ZeroDivisionError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(Finder, "look_up", broken)
        threaded.thread.start()
        threaded.thread.look_up(bed.wanted("a.jpg"))
        assert answered(threaded, 1) == (set(), {0})
    wait_until(lambda: "ZeroDivisionError: on purpose" in str(threaded.said), "the bug told")
    threaded.thread.look_up(bed.wanted("a.jpg"))
    assert answered(threaded, 1) == (set(), {0})
    threaded.thread.close()


def test_verbs_go_on_between_look_ups(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg", "b.jpg")
    threaded = Threaded(bed)
    threaded.thread.start()
    threaded.thread.store(store_items(bed, "a.jpg", "b.jpg"))
    threaded.event()
    answers: list[Any] = []
    threaded.thread.ask(lambda store: verifying(store, repair=False), answers.append)
    threaded.thread.look_up(bed.wanted("a.jpg", "b.jpg"))
    assert answered(threaded, 2) == ({0, 1}, set())
    wait_until(lambda: bool(answers), "the verb answered")
    assert (answers[0].entries, answers[0].sound) == (2, True)
    threaded.thread.retire({"thumbnail": 7})
    threaded.thread.look_up(bed.wanted("a.jpg"))
    wait_until(lambda: _blobs_gone(bed), "retired entries swept")
    threaded.thread.close()


def _blobs_gone(bed: Bed) -> bool:
    return bed.blobs() == []


def test_a_file_that_changes_while_it_is_hashed_is_a_miss(tmp_path: Path) -> None:
    bed = prepared(tmp_path, "a.jpg")
    path = bed.images / "a.jpg"
    command = bed.wanted("a.jpg")
    stamp = stamp_of(bytes(path))
    assert stamp is not None
    whole = Hashing(HashLater(command, command.items[0], stamp))
    while not whole.done:
        whole.step()
    assert whole.content == hashlib.sha256(path.read_bytes()).digest()
    changing = Hashing(HashLater(command, command.items[0], stamp))
    changing.step()
    with open(path, "ab") as file:
        file.write(b"more")
    while not changing.done:
        changing.step()
    assert changing.content is None
