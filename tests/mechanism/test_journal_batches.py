"""Opening, filling and sealing batches: repeated, resumed, refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Counts, Summary
from protocol.paths import to_token
from supervisor.policy import commands as c
from supervisor.policy import events as e
from tests.mechanism.journal_bed import PEER, Bed, record, settlement


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(str(tmp_path))
    yield bed
    bed.close()


def test_a_batch_is_returned_as_it_was_opened(bed: Bed) -> None:
    made = bed.create(overwrite=True, hold=True)
    assert made == e.BatchCreated(peer=PEER, request_id=1, record=record(overwrite=True, hold=True), resumed=False)


def test_opening_a_batch_twice_changes_nothing(bed: Bed) -> None:
    bed.create()
    bed.insert(["a.jpg", "b.jpg"])
    again = bed.create(out="/elsewhere")
    assert not again.resumed
    assert (again.record.out, again.record.items, again.record.next_chunk) == ("/out", 2, 1)
    assert again.record.counts == Counts(pending=2)
    assert again.record.roots == [("/in", "")]


def test_resume_goes_on_with_the_newest_unfinished_batch_of_the_job(bed: Bed) -> None:
    for batch in ("b1", "b2", "b3"):
        bed.create(batch)
        bed.insert(["a.jpg"], batch=batch)
        bed.seal(batch)
    bed.finish("b3")
    made = bed.create("b4", resume=True)
    assert made.resumed
    assert (made.record.batch, made.record.open, made.record.next_chunk) == ("b2", True, 1)
    added = bed.insert(["a.jpg", "new.jpg"], chunk=1, batch="b2")
    assert (added.added, added.known) == (1, 1)


def test_resume_without_an_unfinished_batch_of_the_job_makes_one(bed: Bed) -> None:
    bed.create("b1")
    bed.finish("b1")
    bed.create("b2", fingerprint="another job")
    made = bed.create("b3", resume=True)
    assert (made.record.batch, made.resumed) == ("b3", False)


def test_resume_by_name_opens_a_sealed_batch_of_the_same_job_only(bed: Bed) -> None:
    bed.create("b1")
    bed.seal("b1")
    assert not bed.create("b1", resume=True, fingerprint="another job").resumed
    assert bed.refused(["a.jpg"]).code == "closed"
    assert bed.create("b1", resume=True).resumed
    assert bed.insert(["a.jpg"]).added == 1


def test_a_repeated_chunk_is_acknowledged_and_adds_nothing(bed: Bed) -> None:
    bed.create()
    first = bed.insert(["a.jpg", "b.jpg"])
    assert first == e.ItemsInserted(
        peer=PEER, request_id=7, batch="b1", chunk=0, added=2, known=0, root=0, root_path="/in", prefix=""
    )
    again = bed.insert(["a.jpg", "b.jpg"])
    assert (again.added, again.known, again.root) == (0, 2, 0)
    assert [item.stem for item in bed.fetch()] == ["a.jpg", "b.jpg"]


def test_a_chunk_too_far_is_refused_with_both_numbers(bed: Bed) -> None:
    bed.create()
    bed.insert(["a.jpg"])
    refused = bed.refused(["c.jpg"], chunk=5)
    assert (refused.code, refused.was_insert, refused.request_id) == ("bad_chunk", True, 7)
    assert "chunk 5" in refused.message
    assert "1 is next" in refused.message


def test_names_known_already_are_counted_as_known(bed: Bed) -> None:
    bed.create()
    bed.insert(["a.jpg", "b.jpg"])
    again = bed.insert(["b.jpg", "c.jpg", "c.jpg"], chunk=1)
    assert (again.added, again.known) == (1, 2)
    assert bed.seal(ignored=4) == e.BatchSealed(peer=PEER, request_id=2, batch="b1", items=3, ignored=4)


def test_the_same_file_through_another_root_is_known(bed: Bed) -> None:
    bed.create()
    bed.insert(["sub/a.jpg"], root="/in")
    again = bed.insert(["a.jpg"], chunk=1, root="/in/sub", prefix="sub")
    assert (again.added, again.known, again.root) == (0, 1, 1)


def test_two_files_for_one_output_are_refused_by_name_and_nothing_of_the_chunk_is_kept(bed: Bed) -> None:
    bed.create()
    bed.insert(["a.jpg"], root="/one")
    refused = bed.refused(["x.jpg", "a.jpg", "y.jpg"], chunk=1, root="/two")
    assert refused.code == "clash"
    assert "/one/a.jpg and /two/a.jpg would both be written as 'a.jpg'" in refused.message
    assert [item.stem for item in bed.fetch()] == ["a.jpg"]
    after = bed.create().record
    assert (after.items, after.next_chunk, after.roots) == (1, 1, [("/one", "")])
    assert bed.insert(["x.jpg"], chunk=1, root="/two").added == 1


def test_chunks_sent_at_once_are_answered_one_by_one(bed: Bed) -> None:
    bed.create()
    sent: list[tuple[int, str, list[str]]] = [
        (0, "/in", ["a", "b"]),
        (1, "/in", ["c"]),
        (2, "/in", ["c", "d"]),
        (2, "/in", ["c", "d"]),
        (3, "/two", ["a"]),
        (3, "/in", ["e"]),
        (9, "/in", ["f"]),
    ]
    for chunk, root, names in sent:
        bed.send(names, chunk, root=root)
    answers: list[Any] = [bed.posted.get(timeout=20) for _ in sent]
    assert [(a.added, a.known) for a in answers[:4] + answers[5:6]] == [(2, 0), (1, 0), (1, 1), (0, 2), (1, 0)]
    assert [a.code for a in (answers[4], answers[6])] == ["clash", "bad_chunk"]
    assert [item.stem for item in bed.fetch()] == ["a", "b", "c", "d", "e"]


def abandon(bed: Bed, at: float = 3000.0) -> e.BatchSealed:
    bed.journal.submit(c.SealBatch(peer=b"", request_id="b1", batch="b1", ignored=0, abandoned_at=at))
    return bed.expect(e.BatchSealed)


def test_an_abandoned_batch_says_so_after_a_restart_and_is_opened_again(bed: Bed) -> None:
    bed.create()
    bed.insert(["a", "b"])
    assert abandon(bed).abandoned_at == 3000.0
    bed.close()
    bed = Bed(bed.directory)
    (found,) = bed.recovered.records
    assert (found.open, found.abandoned_at) == (False, 3000.0)
    late = bed.refused(["c"], 1)
    assert (late.code, late.fault) == ("abandoned", "machine")
    assert "2 images" in late.message and "--batch b1" in late.message
    again = bed.create()
    assert (again.resumed, again.record.open, again.record.abandoned_at, again.record.next_chunk) == (
        True,
        True,
        None,
        1,
    )
    assert bed.insert(["b", "c"], 1).added == 1
    bed.close()


def test_an_abandoned_batch_that_is_finished_runs_again_for_the_same_job(bed: Bed) -> None:
    items = bed.filled(["a"])
    abandon(bed)
    bed.settle(*[settlement(item.id) for item in items])
    bed.finish()
    other = bed.create("b2", resume=True, fingerprint="another job")
    assert not other.resumed
    again = bed.create("b3", resume=True)
    assert (again.resumed, again.record.batch, again.record.state, again.record.finished_at) == (
        True, "b1", "running", None,
    )  # fmt: skip
    bed.seal()
    bed.finish()
    assert not bed.create("b4", resume=True).resumed, "it is complete now"


def test_a_batch_that_its_client_closed_or_that_was_cancelled_is_not_abandoned(bed: Bed) -> None:
    bed.create()
    bed.seal(ignored=4)
    assert abandon(bed).abandoned_at is None
    found = bed.create().record
    assert (found.open, found.ignored, found.abandoned_at) == (False, 4, None)


def test_an_unknown_batch_and_a_closed_one_take_no_items(bed: Bed) -> None:
    assert bed.refused(["a.jpg"]).code == "unknown_batch"
    bed.journal.submit(c.SealBatch(peer=PEER, request_id=3, batch="nope", ignored=0))
    refused = bed.expect(e.JournalRefused)
    assert (refused.code, refused.was_insert) == ("unknown_batch", False)
    bed.create()
    bed.seal()
    assert "closed" in bed.refused(["a.jpg"]).message
    bed.create("b2")
    bed.change("b2", state="cancelled", finished_at=1.0)
    assert "cancelled" in bed.refused(["a.jpg"], batch="b2").message


def test_names_that_are_not_utf8_and_prefixes_become_stems(bed: Bed) -> None:
    odd = to_token(b"b\xff.jpg")
    bed.create()
    bed.insert(["plain é.jpg", odd, 'new\nline ".jpg'], prefix="holiday", root="/in/holiday")
    bed.insert(["a.jpg"], chunk=1, prefix=to_token(b"\xfe"), root=to_token(b"/in/\xfe"))
    assert [(item.root, item.stem) for item in bed.fetch()] == [
        (0, "holiday/plain é.jpg"),
        (0, to_token(b"holiday/b\xff.jpg")),
        (0, 'holiday/new\nline ".jpg'),
        (1, to_token(b"\xfe/a.jpg")),
    ]
    bed.settle(*(settlement(item.id) for item in bed.fetch()))
    assert [row["path"] for row in bed.results()] == [
        "/in/holiday/plain é.jpg",
        "/in/holiday/b\ufffd.jpg",
        '/in/holiday/new\nline ".jpg',
        "/in/\ufffd/a.jpg",
    ]


def test_a_finished_batch_keeps_its_counts_and_summary(bed: Bed) -> None:
    one, two, _ = bed.filled(["a", "b", "c"])
    bed.settle(settlement(one.id), settlement(two.id, "failed"))
    summary = Summary(seconds=2.5, recycles={"soft": 2}, oom_kills=1)
    bed.change(state="paused", paused="asked", summary=summary)
    assert bed.create().record.paused == "asked"
    bed.change(state="finished", finished_at=2000.0)
    found = bed.create().record
    assert (found.state, found.finished_at, found.paused, found.summary) == ("finished", 2000.0, None, summary)
    assert found.counts == Counts(pending=1, done=1, failed=1)


def test_a_restart_finds_the_unfinished_batches_as_they_were(bed: Bed, tmp_path: Path) -> None:
    one, _ = bed.filled(["a", "b"])
    bed.settle(settlement(one.id, "cached"))
    bed.change(state="running")
    bed.filled(["a"], "b2")
    bed.finish("b2")
    before = bed.create("b1").record
    bed.journal.close()
    again = Bed(str(tmp_path), start=False)
    assert again.recovered == e.Recovered(records=[before], in_progress=[], clean=True)
    assert before.counts == Counts(pending=1, cached=1)
    assert (before.items, before.next_chunk, before.roots, before.state) == (2, 1, [("/in", "")], "running")
    again.close()
