"""Items: fetched, charged, settled, cancelled, retried, kept in quarantine."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from protocol.messages import Counts, QuarantineEntries, QuarantineList
from protocol.paths import to_token
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.items import Charge, Item
from tests.mechanism.journal_bed import PEER, Bed, facts, settlement, wait_until


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(str(tmp_path))
    yield bed
    bed.close()


def retry(bed: Bed, *, quarantined: bool = False, batch: str = "b1") -> e.ItemsRetried:
    bed.journal.submit(c.RetryItems(peer=PEER, request_id=4, batch=batch, quarantined=quarantined))
    return bed.expect(e.ItemsRetried)


def forget(bed: Bed, path: str, *, again: bool = False) -> e.QuarantineForgotten:
    bed.journal.submit(c.ForgetQuarantine(peer=PEER, request_id=5, path=path, retry=again))
    return bed.expect(e.QuarantineForgotten)


def quarantined(bed: Bed) -> list[str]:
    answer = bed.ask(QuarantineList())
    assert isinstance(answer, QuarantineEntries)
    return [entry.path for entry in answer.entries]


def test_items_are_fetched_in_order_and_in_pages(bed: Bed) -> None:
    everything = bed.filled([f"{n}.jpg" for n in range(7)])
    assert everything[0] == Item(id=everything[0].id, batch="b1", root=0, stem="0.jpg")
    assert [item.id for item in everything] == sorted(item.id for item in everything)
    assert bed.fetch(limit=3) == everything[:3]
    assert bed.fetch(after=everything[2].id, limit=3) == everything[3:6]
    bed.journal.submit(c.FetchItems(batch="b1", after=everything[5].id, limit=3))
    assert bed.expect(e.ItemsFetched) == e.ItemsFetched(batch="b1", items=everything[6:], exhausted=True)
    bed.journal.submit(c.FetchItems(batch="b1", after=0, limit=7))
    assert not bed.expect(e.ItemsFetched).exhausted
    assert bed.fetch("nope") == []


def test_another_batch_between_does_not_show(bed: Bed) -> None:
    bed.create("b1")
    bed.create("b2", out="/out2")
    for chunk in range(3):
        for batch in ("b1", "b2"):
            bed.insert([f"{batch}-{chunk}"], chunk, batch=batch)
    assert [item.stem for item in bed.fetch("b2")] == ["b2-0", "b2-1", "b2-2"]


def test_charges_are_kept_until_the_item_settles(bed: Bed) -> None:
    one, two = bed.filled(["a", "b"])
    bed.settle(settlement(two.id))
    charge = Charge(id=one.id, charges=1, memory_charges=2, outside_kills=3, unclean_stops=4, needs_bytes=5)
    bed.journal.submit(c.ChargeItems(charges=[charge]))
    bed.journal.submit(c.ChargeItems(charges=[msgspec.structs.replace(charge, id=two.id)]))
    assert bed.fetch() == [
        Item(
            id=one.id,
            batch="b1",
            root=0,
            stem="a",
            charges=1,
            memory_charges=2,
            outside_kills=3,
            unclean_stops=4,
            needs_bytes=5,
        )
    ]


def test_a_settled_item_stays_as_it_is(bed: Bed) -> None:
    (item,) = bed.filled(["a"])
    first = settlement(item.id, "failed", tries=2, detail=b'{"error":{"kind":"corrupt","message":"x"}}')
    assert bed.settle(first) == [first]
    second = settlement(item.id, "done")
    assert bed.settle(second) == [second], "told as committed all the same"
    (row,) = bed.results()
    assert (row["state"], row["attempts"], row["error"]) == ("failed", 2, {"kind": "corrupt", "message": "x"})
    assert bed.fetch() == []


def test_settlements_submitted_together_are_all_told_in_order(bed: Bed) -> None:
    everything = bed.filled([str(n) for n in range(1200)])
    for item in everything:
        bed.journal.submit(c.SettleItems(settlements=[settlement(item.id)]))
    told: list[int] = []
    while len(told) < len(everything):
        told += [each.id for each in bed.expect(e.ItemsCommitted).settlements]
    assert told == [item.id for item in everything]
    assert bed.counts() == Counts(done=1200)


def test_figures_that_no_column_holds_do_not_keep_the_others_from_the_disk(bed: Bed) -> None:
    one, two = bed.filled(["a", "b"])
    bed.settle(settlement(one.id, peak_bytes=2**70, seconds=float("nan")), settlement(two.id, detail=b"\xff"))
    assert bed.results(states=["done"], limit=1)[0]["peak_bytes"] == 2**63 - 1
    assert bed.counts() == Counts(done=2)


def test_cancel_spares_what_is_leased(bed: Bed) -> None:
    one, two, three = bed.filled(["a", "b", "c"])
    bed.filled(["z"], "b2")
    bed.settle(settlement(one.id))
    bed.journal.submit(c.CancelItems(batch="b1", except_ids=[two.id]))
    assert bed.expect(e.ItemsCancelled) == e.ItemsCancelled(batch="b1", count=1)
    assert [item.id for item in bed.fetch()] == [two.id]
    bed.settle(settlement(two.id))
    assert [(row["path"], row["state"]) for row in bed.results()] == [
        ("/in/a", "done"),
        ("/in/c", "cancelled"),
        ("/in/b", "done"),
    ]
    assert (bed.counts(), bed.counts("b2")) == (Counts(done=2, cancelled=1), Counts(pending=1))
    bed.journal.submit(c.CancelItems(batch="b1", except_ids=[]))
    assert bed.expect(e.ItemsCancelled).count == 0
    assert three.id > two.id


def test_failed_items_go_back_as_new_and_the_batch_runs_again(bed: Bed) -> None:
    one, two, three = bed.filled(["a", "b", "c"])
    bed.journal.submit(
        c.ChargeItems(
            charges=[Charge(id=one.id, charges=1, memory_charges=1, outside_kills=1, unclean_stops=1, needs_bytes=9)]
        )
    )
    bed.settle(
        settlement(one.id, "failed", detail=b'{"error":null}'),
        settlement(two.id, "quarantined", quarantine=facts()),
        settlement(three.id),
    )
    bed.finish()
    back = retry(bed)
    assert (back.failed, back.quarantined) == (1, 0)
    assert (back.record.state, back.record.finished_at) == ("running", None)
    assert back.record.counts == Counts(pending=1, quarantined=1, done=1)
    assert bed.fetch() == [one], "uncharged"
    assert [row["path"] for row in bed.results()] == ["/in/b", "/in/c"]
    bed.settle(settlement(one.id))
    assert [row["path"] for row in bed.results()] == ["/in/b", "/in/c", "/in/a"], "settled last"


def test_quarantined_items_go_back_when_asked_and_are_not_shunned(bed: Bed) -> None:
    one, two = bed.filled(["a", "b"])
    bed.settle(settlement(one.id, "quarantined", quarantine=facts()), settlement(two.id))
    bed.finish()
    back = retry(bed, quarantined=True)
    assert (back.failed, back.quarantined) == (0, 1)
    assert bed.fetch() == [one]
    assert quarantined(bed) == []


def test_nothing_to_retry_leaves_a_finished_batch_finished(bed: Bed) -> None:
    (item,) = bed.filled(["a"])
    bed.settle(settlement(item.id))
    bed.finish()
    assert retry(bed, quarantined=True).record.state == "finished"
    bed.journal.submit(c.RetryItems(peer=PEER, request_id=4, batch="nope", quarantined=False))
    assert bed.expect(e.JournalRefused).code == "unknown_batch"


def test_quarantine_is_remembered_over_batches(bed: Bed) -> None:
    (item,) = bed.filled(["a"])
    bed.settle(settlement(item.id, "quarantined", quarantine=facts()))
    again, innocent = bed.filled(["a", "b"], "b2", out="/out2")
    assert again.shunned == (10, 20, "thumbnail-1")
    assert innocent.shunned is None
    bed.create("b3")
    bed.insert(["in/a"], batch="b3", root="/")
    assert bed.fetch("b3")[0].shunned == (10, 20, "thumbnail-1"), "through another root"


def test_what_was_seen_under_the_recipe_of_the_batch_is_preferred(bed: Bed) -> None:
    (one,) = bed.filled(["a"])
    (other,) = bed.filled(["a"], "b2")
    (third,) = bed.filled(["a"], "b3")
    bed.settle(settlement(one.id, "quarantined", quarantine=facts(version="thumbnail-1")))
    bed.settle(settlement(other.id, "quarantined", quarantine=facts(version="thumbnail-2", size_bytes=11)))
    bed.settle(settlement(third.id, "quarantined", quarantine=facts(version="ocr-1", recipe="ocr")))
    shunned = bed.filled(["a"], "b4")[0].shunned
    assert shunned == (11, 20, "thumbnail-2")


def test_an_output_of_an_earlier_batch_is_owned(bed: Bed) -> None:
    names = ["done", "failed", "pending", "cancelled", "begun"]
    done, failed, _, cancelled, begun = bed.filled(names)
    assert not any(item.owned for item in bed.fetch())
    bed.settle(
        settlement(done.id),
        settlement(failed.id, "failed"),
        settlement(cancelled.id, "cancelled", tries=0),
        settlement(begun.id, "cancelled", tries=1),
    )
    owned = [item.stem for item in bed.filled([*names, "new"], "b2") if item.owned]
    assert owned == ["done", "failed", "begun"]
    assert not any(item.owned for item in bed.filled(names, "b3", out="/elsewhere"))
    assert not any(item.owned for item in bed.filled(names, "b4", out=None))
    assert [item.stem for item in bed.filled(names, "b5") if item.owned] == owned


def test_a_forgotten_image_is_no_longer_shunned(bed: Bed) -> None:
    (one,) = bed.filled(["a"])
    bed.settle(settlement(one.id, "quarantined", quarantine=facts()))
    assert forget(bed, "/in/nope") == e.QuarantineForgotten(peer=PEER, request_id=5, known=False, records=[])
    gone = forget(bed, "/in/a")
    assert (gone.known, gone.records) == (True, [])
    assert bed.filled(["a"], "b2")[0].shunned is None
    assert bed.fetch() == [], "its verdict stands"


def test_a_forgotten_image_goes_back_to_work_when_asked(bed: Bed) -> None:
    odd = to_token(b"\xff.jpg")
    first = bed.filled([odd, "other"])
    second = bed.filled([odd], "b2")
    bed.settle(settlement(first[0].id, "quarantined", quarantine=facts()), settlement(first[1].id, "quarantined"))
    bed.settle(settlement(second[0].id, "quarantined", quarantine=facts()))
    bed.finish("b1")
    gone = forget(bed, to_token(b"/in/\xff.jpg"), again=True)
    assert gone.known
    assert [(r.batch, r.state, r.counts.pending) for r in gone.records] == [("b1", "running", 1), ("b2", "running", 1)]
    assert [item.stem for item in bed.fetch()] == [odd]


def test_outputs_are_settled_by_way_of_the_disk_and_a_vanished_one_is_no_error(bed: Bed, tmp_path: Path) -> None:
    everything = bed.filled([str(n) for n in range(20)])
    outputs = [tmp_path / "out" / f"{n}\udcff.webp" for n in range(20)]
    outputs[0].parent.mkdir()
    for output in outputs[:15]:
        output.write_bytes(b"x")
    written = [to_token(os.fsencode(output)) for output in outputs]
    for item, path in zip(everything, written, strict=True):
        bed.journal.submit(c.SettleItems(settlements=[settlement(item.id, written=[path, "/gone/dir/file"])]))
    told: list[int] = []
    while len(told) < 20:
        told += [each.id for each in bed.expect(e.ItemsCommitted).settlements]
    assert sorted(told) == [item.id for item in everything]


def test_after_an_unclean_stop_those_in_progress_are_counted(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path / "first"))
    one, two, three = bed.filled(["a", "b", "c"])
    bed.settle(settlement(three.id))
    second = Bed(str(bed.power_cut(tmp_path / "second")), start=False)
    bed.close()
    assert not second.recovered.clean
    assert second.recovered.records[0].counts == Counts(pending=2, done=1)
    (found,) = second.journal.recover_in_progress([one.id, three.id, 999])
    assert (found.id, found.batch, found.stem, found.unclean_stops) == (one.id, "b1", "a", 1)
    second.journal.start()
    third = Bed(str(second.power_cut(tmp_path / "third")), start=False)
    assert [(i.id, i.unclean_stops) for i in third.journal.recover_in_progress([one.id])] == [(one.id, 2)]
    third.journal.start()
    assert [(i.id, i.unclean_stops) for i in third.fetch()] == [(one.id, 2), (two.id, 0)]
    second.close()
    third.close()
    again = Bed(third.directory, start=False)
    assert [i.unclean_stops for i in again.journal.recover_in_progress([one.id])] == [1], "a clean stop ended the row"
    assert again.recovered.clean
    again.close()


def test_everything_is_posted_from_threads_of_the_journal(bed: Bed) -> None:
    bed.filled(["a"])
    wait_until(lambda: bed.threads)
    assert bed.threads == {"journal"}
