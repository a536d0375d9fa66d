"""What a client reads: pages of results, batches, decisions, quarantine; and the same with no supervisor."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol import codec
from protocol import messages as m
from protocol.errors import StateDirectoryUnusable
from protocol.paths import to_token
from supervisor.mechanism.journal import OfflineReader
from supervisor.policy import commands as c
from supervisor.policy import events as e
from tests.mechanism.journal_bed import Bed, facts, settlement, wait_until

DETAIL = (
    b'{"error":null,"outputs":[{"step":0,"path":"/out/a.256.webp","width":256,"height":192,"bytes":7}],'
    b'"values":{"phash":"ff00"},"warnings":["changed since submission"]}'
)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(str(tmp_path))
    yield bed
    bed.close()


def note(bed: Bed, message: str, **more: Any) -> None:
    bed.journal.submit(c.Note(kind="test", message=message, **more))


def decisions(bed: Bed, request: m.AnyRequest) -> list[m.Decision]:
    answer = bed.ask(request)
    assert isinstance(answer, m.Decisions)
    return answer.decisions


def test_a_result_is_the_line_of_the_contract(bed: Bed) -> None:
    one, two = bed.filled(["a", to_token(b"\xff")])
    bed.settle(
        settlement(one.id, tries=2, seconds=0.25, peak_bytes=99, slot=3, detail=DETAIL),
        settlement(two.id, "cached"),
    )
    assert bed.results() == [
        {
            "path": "/in/a",
            "state": "done",
            "error": None,
            "attempts": 2,
            "outputs": [{"step": 0, "path": "/out/a.256.webp", "width": 256, "height": 192, "bytes": 7}],
            "values": {"phash": "ff00"},
            "seconds": 0.25,
            "peak_bytes": 99,
            "worker": 3,
            "cached": False,
            "warnings": ["changed since submission"],
        },
        {
            "path": "/in/\ufffd",
            "path_b64": "L2luL/8=",
            "state": "cached",
            "error": None,
            "attempts": 1,
            "outputs": [],
            "values": {},
            "seconds": 0.0,
            "peak_bytes": 0,
            "worker": None,
            "cached": True,
            "warnings": [],
        },
    ]


def pages(bed: Bed, **more: Any) -> list[m.ResultsPage]:
    found: list[m.ResultsPage] = []
    after: int | None = 0
    while after is not None:
        page = bed.ask(m.Results(batch="b1", after=after, **more))
        assert isinstance(page, m.ResultsPage)
        assert len(codec.encode(page)) <= m.MAX_FRAME_BYTES
        found.append(page)
        after = page.next
    return found


def test_pages_follow_the_order_of_settling(bed: Bed) -> None:
    everything = bed.filled([str(n) for n in range(25)])
    for item in reversed(everything):
        bed.settle(settlement(item.id))
    found = pages(bed, limit=10)
    assert [len(page.results) for page in found] == [10, 10, 5]
    paths = [msgspec.json.decode(line)["path"] for page in found for line in page.results]
    assert paths == [f"/in/{n}" for n in reversed(range(25))]


def test_results_of_some_states_only(bed: Bed) -> None:
    everything = bed.filled([str(n) for n in range(6)])
    states = ["done", "failed", "cached", "failed", "quarantined", "done"]
    bed.settle(*(settlement(item.id, state) for item, state in zip(everything, states, strict=True)))
    found = pages(bed, limit=2, states=["failed", "quarantined"])
    assert [msgspec.json.decode(line)["path"] for page in found for line in page.results] == ["/in/1", "/in/3", "/in/4"]


def test_large_values_make_short_pages_and_none_is_too_large_for_a_frame(bed: Bed) -> None:
    everything = bed.filled([str(n) for n in range(9)])
    large = b'{"error":null,"outputs":[],"values":{"text":"%b"},"warnings":[]}'
    for item in everything:
        size = 5_000_000 if item.stem == "4" else 1_000_000
        bed.settle(settlement(item.id, detail=large % (b"x" * size)))
    found = pages(bed)
    lines = [msgspec.json.decode(line) for page in found for line in page.results]
    assert [line["path"] for line in lines] == [f"/in/{n}" for n in range(9)]
    assert len(found) > 2
    assert lines[4]["values"] == {}
    assert "left out" in lines[4]["warnings"][0]
    assert len(lines[5]["values"]["text"]) == 1_000_000


def test_batches_newest_first_as_the_pool_knows_them(bed: Bed) -> None:
    bed.filled(["a", "b"], "b1")
    bed.filled(["a"], "b2")
    counts = m.Counts(pending=1, leased=1)
    answer = bed.ask(m.ListBatches(id="x"), {"b1": c.LiveBatch(counts, "running")})
    assert isinstance(answer, m.Batches)
    assert answer.id == "x"
    assert [(row.batch, row.state, row.counts, row.recipe) for row in answer.batches] == [
        ("b2", "accepted", m.Counts(pending=1), "thumbs"),
        ("b1", "running", counts, "thumbs"),
    ]
    progress = bed.ask(m.Progress(batch="b1"))
    assert isinstance(progress, m.BatchProgress)
    assert (progress.items, progress.counts, progress.open) == (2, m.Counts(pending=2), True)
    bed.finish("b1")
    over = bed.ask(m.ListBatches(), {"b1": c.LiveBatch(counts, "running")})
    assert isinstance(over, m.Batches) and over.batches[1].state == "finished", "what is committed is the last word"


def test_an_unknown_batch_and_a_request_that_does_not_read_are_problems(bed: Bed) -> None:
    for request in (m.Results(id=9, batch="nope"), m.Progress(id=9, batch="nope")):
        problem = bed.problem(request)
        assert (problem.id, problem.code, problem.exit_code) == (9, "unknown_batch", 2)
    assert bed.problem(m.StatusRequest()).code == "no_supervisor"


def test_decisions_are_found_by_number_slot_and_path(bed: Bed) -> None:
    note(bed, "first", slot=1, figures={"rss_bytes": 5})
    note(bed, "second", path="/in/a", batch="b1")
    note(bed, "third", slot=1)
    everything = decisions(bed, m.Events())
    assert [d.message for d in everything] == ["first", "second", "third"]
    assert everything[0] == m.Decision(
        number=1, at=5000.0, kind="test", message="first", slot=1, figures={"rss_bytes": 5}
    )
    assert [d.message for d in decisions(bed, m.Events(after=1, limit=1))] == ["second"]
    assert [d.message for d in decisions(bed, m.Events(limit=1))] == ["third"]
    assert [d.message for d in decisions(bed, m.Why(slot=1))] == ["first", "third"]
    assert [d.message for d in decisions(bed, m.Why(slot=1, limit=1))] == ["third"]
    assert [d.message for d in decisions(bed, m.Why(path="/in/a"))] == ["second"]


def test_the_oldest_decisions_are_dropped(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.journal.keep_decisions(100)
    monkeypatch.setattr("supervisor.mechanism.journal.remembered.DECISIONS_STEP", 10)
    for number in range(1, 1001):
        note(bed, str(number))
    wait_until(lambda: decisions(bed, m.Events(limit=1))[-1:] and decisions(bed, m.Events(limit=1))[0].number == 1000)
    kept = decisions(bed, m.Events(limit=1000))
    assert 100 <= len(kept) < 110 + 256, "a group is dropped whole"
    assert [d.number for d in kept] == list(range(1001 - len(kept), 1001))


def test_why_an_image_tells_its_verdicts_too(bed: Bed) -> None:
    path = to_token(b"/in/d\xff/a.jpg")
    one, _ = bed.filled([to_token(b"d\xff/a.jpg"), "b"])
    note(bed, "retried alone", path=path)
    error = b'{"error":{"kind":"crash","message":"SIGSEGV"},"outputs":[],"values":{},"warnings":[]}'
    bed.settle(settlement(one.id, "quarantined", tries=2, slot=1, detail=error, quarantine=facts()))
    bed.create("b2")
    bed.insert(["a.jpg"], batch="b2", root=to_token(b"/in/d\xff"), prefix="kept")
    told = decisions(bed, m.Why(path=path))
    assert [(d.kind, d.message) for d in told] == [
        ("test", "retried alone"),
        ("quarantined", "in batch b1: quarantined: crash: SIGSEGV"),
        ("pending", "in batch b2: pending"),
    ]
    assert told[1].figures["attempts"] == 2
    assert decisions(bed, m.Why(path="/in/a.jpg")) == []


def test_quarantine_is_listed_with_its_evidence(bed: Bed) -> None:
    one, two = bed.filled(["a", "b"])
    bed.settle(settlement(one.id, "quarantined", quarantine=facts()))
    bed.settle(settlement(two.id, "quarantined", quarantine=facts(kind="memory")))
    answer = bed.ask(m.QuarantineList())
    assert isinstance(answer, m.QuarantineEntries)
    assert [entry.path for entry in answer.entries] == ["/in/a", "/in/b"]
    only = bed.ask(m.QuarantineList(path="/in/b"))
    assert isinstance(only, m.QuarantineEntries)
    assert only.entries == [
        m.QuarantineEntry(
            path="/in/b",
            at=5000.0,
            kind="memory",
            message="SIGSEGV twice in thumbnail",
            recipe="thumbs",
            size_bytes=10,
            mtime_ns=20,
            evidence={"signals": [11, 11]},
        )
    ]


def test_a_reader_that_fails_disturbs_nobody(bed: Bed) -> None:
    (item,) = bed.filled(["a"])
    bed.settle(settlement(item.id, detail=b"this is not JSON"))
    assert bed.problem(m.Results(batch="b1")).code == "journal"
    assert bed.insert(["b"], chunk=1).added == 1


@pytest.mark.parametrize("shared_memory", ["kept", "lost"])
def test_no_supervisor_is_needed_to_read(
    bed: Bed, tmp_path_factory: pytest.TempPathFactory, shared_memory: str
) -> None:
    (item,) = bed.filled(["a"])
    bed.settle(settlement(item.id))
    crashed = bed.power_cut(tmp_path_factory.mktemp("next") / "crashed")
    if shared_memory == "lost":
        (crashed / "queue.db-shm").unlink()
    assert (crashed / "queue.db-wal").stat().st_size > 0, "the rows are in the WAL alone"
    before = {path.name: path.read_bytes() for path in crashed.iterdir() if not path.name.endswith("-shm")}
    with OfflineReader(str(crashed)) as reader:
        page = reader.answer(m.Results(batch="b1"))
        assert isinstance(page, m.ResultsPage)
        assert len(page.results) == 1
        assert isinstance(reader.answer(m.ListBatches()), m.Batches)
        assert isinstance(reader.answer(m.Hello()), m.Problem)
    after = {path.name: path.read_bytes() for path in crashed.iterdir() if not path.name.endswith("-shm")}
    assert {name: len(data) for name, data in after.items()} == {name: len(data) for name, data in before.items()}
    assert after == before, "nothing was written or checkpointed"


def test_reading_where_nothing_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryUnusable, match=r"no state here.*--state"):
        OfflineReader(str(tmp_path))


def test_events_of_the_group_arrive_before_the_answer(bed: Bed) -> None:
    bed.filled(["a"])
    bed.send(["b"], 1)
    bed.journal.submit(c.Query(peer=b"p", request=m.Progress(batch="b1")))
    assert bed.expect(e.ItemsInserted).added == 1
    assert bed.posted.get(timeout=20).answer.items == 2
