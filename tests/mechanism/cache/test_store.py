"""What is kept is found, delivered and let go, on real files."""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from protocol.paths import to_token
from supervisor.mechanism.cache.upkeep import Sweep
from supervisor.mechanism.cache.verify import clearing, run, trimming, verifying
from supervisor.policy.cache.keys import step_of
from tests.mechanism.cache.bed import LARGE, PROBE, SMALL, THUMBS, Bed


@pytest.mark.parametrize("size_bytes", [SMALL, LARGE])
def test_outputs_that_are_gone_are_delivered_and_the_result_reads_as_a_worker_told_it(
    tmp_path: Path, size_bytes: int
) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg", size_bytes=size_bytes, steps=(THUMBS, PROBE))
    right = bed.outputs()
    for name in right:
        (bed.out / name).unlink()
    answers = bed.find("a.jpg", steps=(THUMBS, PROBE))
    assert (answers.misses, answers.hash_later) == ([], [])
    assert bed.outputs() == right == bed.right("a.jpg", size_bytes)
    detail = msgspec.json.decode(answers.hits[0].detail)
    assert detail == {
        "error": None,
        "outputs": [
            {"step": "thumbnail", "path": str(bed.out / name), "width": 10, "height": 20, "bytes": len(right[name])}
            for name in ("a.jpg.256.webp", "a.jpg.1024.webp")
        ],
        "values": {"probe": {"width": 250}},
        "warnings": [],
    }
    assert answers.hits[0].written == [str(bed.out / "a.jpg.256.webp"), str(bed.out / "a.jpg.1024.webp")]
    assert answers.hits[0].saved_seconds == 0.5
    bed.close()


def test_outputs_in_place_are_not_touched_and_no_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg", "b.jpg")
    before = {path: path.stat().st_ino for path in bed.out.iterdir()}

    def refuse(*arguments: object, **more: object) -> int:
        raise AssertionError(f"opened {arguments[0]!r}")

    monkeypatch.setattr(os, "open", refuse)
    answers = bed.find("a.jpg", "b.jpg")
    monkeypatch.undo()
    assert [hit.id for hit in answers.hits] == [0, 1]
    assert [hit.written for hit in answers.hits] == [[], []]
    assert {path: path.stat().st_ino for path in bed.out.iterdir()} == before
    bed.close()


def test_only_what_is_missing_of_an_item_is_written_anew(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg")
    (bed.out / "a.jpg.256.webp").unlink()
    left = (bed.out / "a.jpg.1024.webp").stat().st_ino
    assert len(bed.find("a.jpg").hits) == 1
    assert bed.outputs() == bed.right("a.jpg")
    assert (bed.out / "a.jpg.1024.webp").stat().st_ino == left
    bed.close()


def test_a_moved_or_copied_file_is_found_by_its_content_and_then_by_its_stat(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg")
    content = (bed.images / "a.jpg").read_bytes()
    bed.image("elsewhere/b.jpg", content)
    answers = bed.find("elsewhere/b.jpg")
    assert [later.wanted.id for later in answers.hash_later] == [0]
    resolved = bed.finder.resolve(answers.hash_later[0], hashlib.sha256(content).digest())
    assert len(resolved.hits) == 1
    assert (bed.out / "elsewhere/b.jpg.1024.webp").read_bytes() == (bed.out / "a.jpg.1024.webp").read_bytes()
    bed.store.commit()
    assert len(bed.find("elsewhere/b.jpg").hits) == 1, "by its stat now"
    bed.close()


def test_a_file_of_a_size_nobody_has_is_not_read(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg")
    bed.image("new.jpg", b"another size")
    answers = bed.find("new.jpg", "not there.jpg")
    assert answers.hash_later == [] and [miss.content for miss in answers.misses] == ["", ""]
    bed.close()


def test_a_changed_file_a_changed_step_and_another_version_are_misses(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg", "b.jpg")
    bed.image("a.jpg", b"changed")
    assert len(bed.find("a.jpg").misses) == 1
    for other in (step_of("thumbnail", 1, {"sizes": [256, 1024], "quality": 90}), step_of("thumbnail", 2, {})):
        misses = bed.find("b.jpg", steps=(other,)).misses
        assert len(misses) == 1 and len(misses[0].content) == 64, "its content is known, its result is not"
    bed.close()


def test_a_file_that_had_not_rested_when_it_was_hashed_gets_no_shortcut(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    image = bed.image("a.jpg")
    bed.keep(bed.made("a.jpg", hashed_at_ns=image.stat().st_ctime_ns + 1_000_000))
    answers = bed.find("a.jpg")
    assert (answers.hits, len(answers.hash_later)) == ([], 1)
    bed.close()


def test_a_strict_batch_does_not_take_what_came_with_warnings(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.image("a.jpg")
    bed.keep(bed.made("a.jpg", warnings=b'["truncated"]'))
    assert msgspec.json.decode(bed.find("a.jpg").hits[0].detail)["warnings"] == ["truncated"]
    assert len(bed.find("a.jpg", strict=True).misses) == 1
    bed.close()


def test_the_limits_hold_whatever_comes(tmp_path: Path) -> None:
    bed = Bed(tmp_path, limit_bytes=400_000, limit_entries=30)
    for number in range(60):
        name = f"{number}.jpg"
        bed.image(name)
        bed.keep(bed.made(name, 40_000 if number % 3 else 1000))
        assert bed.store.index.bytes <= 400_000 and bed.store.index.entries <= 30
    on_disk = sum(path.stat().st_size for path in bed.blobs())
    assert on_disk <= 400_000, "what was culled is gone from the disk too"
    counted = bed.store.index.entries, bed.store.index.bytes
    bed.store.index.recount()
    assert (bed.store.index.entries, bed.store.index.bytes) == counted, "the count is never lost"
    assert bed.store.stats().culled == 60 - counted[0]
    bed.close()


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    bed = Bed(tmp_path, limit_bytes=10_000)
    bed.image("a.jpg")
    assert bed.keep(bed.made("a.jpg")) == [False]
    assert bed.blobs() == []
    bed.close()


def test_small_values_stay_while_large_ones_can_go(tmp_path: Path) -> None:
    bed = Bed(tmp_path, limit_bytes=300_000, policy="lru")
    bed.filled(*(f"small{number}" for number in range(20)), size_bytes=800)
    bed.clock.now += 100
    bed.filled(*(f"large{number}" for number in range(20)), size_bytes=40_000)
    hits = bed.find(*(f"small{number}" for number in range(20))).hits
    assert len(hits) == 20
    bed.close()


def test_hits_outlive_a_restart_without_a_write_each(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.filled("a.jpg")
    for _ in range(5):
        bed.find("a.jpg")
    bed.find("a.jpg", steps=(PROBE,))
    bed.close()
    bed.open()
    entry = bed.store.index.walk(b"", 10)[0]
    assert (entry.hits, entry.size_bytes) == (5, 50_004)
    stats = bed.store.stats()
    assert (stats.hits, stats.entries) == (5, 1)
    bed.close()


def test_stats_are_the_fields_of_the_contract_and_tell_first_sights_apart(tmp_path: Path) -> None:
    bed = Bed(tmp_path, limit_bytes=60_000, policy="lru")
    bed.filled("a.jpg")
    bed.find("a.jpg")
    bed.filled("b.jpg")
    assert len(bed.find("a.jpg").misses) == 1, "culled for b"
    bed.image("c.jpg", b"c")
    bed.find("c.jpg")
    assert list(msgspec.json.decode(msgspec.json.encode(bed.store.stats()))) == [
        "entries", "bytes", "limit_bytes", "hits", "misses", "hit_rate", "policy", "culled", "memory_entries",
        "memory_bytes",
    ]  # fmt: skip
    [tally] = bed.store.step_tallies()
    assert (tally.operation, tally.policy, tally.stored, tally.culled) == ("thumbnail", "lru", 2, 1)
    assert (tally.hits, tally.first_sights, tally.missed_again) == (1, 1, 1)
    assert tally.reference_hit_rate == 0.5
    bed.close()


def test_the_verbs(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    names = [f"{number}.jpg" for number in range(10)]
    bed.filled(*names)
    assert run(verifying(bed.store, repair=False)).sound
    assert run(trimming(bed.store, 200_000)) == bed.store.stats().culled * 50_004 > 0
    assert bed.store.index.bytes <= 200_000
    bed.store.choose("lfu")
    bed.close()
    bed.open()
    assert bed.store.stats().policy == "lfu"
    left = bed.store.index.bytes
    assert run(clearing(bed.store)) == left
    assert bed.blobs() == [] and bed.store.stats().entries == 0
    assert bed.find(*names).hits == []
    bed.close()


def test_what_expired_and_what_has_another_version_is_swept(tmp_path: Path) -> None:
    bed = Bed(tmp_path, policy="ttl", ttl_seconds=1000.0)
    bed.filled("old.jpg")
    bed.clock.now += 999
    bed.filled("new.jpg")
    assert len(bed.find("old.jpg").hits) == 1
    bed.clock.now += 2
    assert len(bed.find("old.jpg").misses) == 1, "expired on use"
    sweep = Sweep(bed.store)
    while sweep.turn():
        bed.store.commit()
    assert bed.store.index.entries == 1 and len(bed.blobs()) == 2
    bed.store.retire({"thumbnail": 2})
    assert len(bed.find("new.jpg").misses) == 1
    while sweep.turn():
        bed.store.commit()
    assert bed.store.index.entries == 0 and bed.blobs() == []
    bed.close()


def test_the_memory_level_is_bounded_and_gives_everything_back(tmp_path: Path) -> None:
    bed = Bed(tmp_path, memory_bytes=20_000)
    bed.filled(*(f"{number}.jpg" for number in range(20)), size_bytes=2000)
    assert 0 < bed.store.memory.bytes <= 20_000
    assert bed.store.trim_memory("moderate") > 0 and bed.store.memory.bytes <= 10_000
    bed.store.trim_memory("emergency")
    assert (bed.store.memory.bytes, len(bed.store.memory)) == (0, 0)
    bed.close()


def test_hard_links_by_option(tmp_path: Path) -> None:
    bed = Bed(tmp_path, hard_links=True)
    bed.filled("a.jpg")
    for path in bed.out.iterdir():
        path.unlink()
    assert len(bed.find("a.jpg").hits) == 1
    assert {path.stat().st_ino for path in bed.out.iterdir()} == {path.stat().st_ino for path in bed.blobs()}
    os.unlink(bed.out / "a.jpg.256.webp")
    bed.image("a.jpg")
    bed.close()


def test_two_steps_of_one_operation_and_names_that_are_not_utf8(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    name = os.fsdecode(b"caf\xe9 \n.jpg")
    path = bed.images / name
    path.write_bytes(b"x" * 300)
    other = step_of("probe", 1, {"deep": True})
    stem = to_token(os.fsencode(name))
    made = bed.made(name, SMALL, steps=(THUMBS, PROBE, other), stem=stem)
    assert bed.keep(made, steps=(THUMBS, PROBE, other)) == [True]
    for output in bed.out.iterdir():
        output.unlink()
    command = bed.wanted(name, steps=(THUMBS, PROBE, other))
    item = msgspec.structs.replace(command.items[0], stem=stem)
    answers = bed.finder.look_up(msgspec.structs.replace(command, items=[item]))
    detail = msgspec.json.decode(answers.hits[0].detail)
    assert detail["values"] == {"probe": {"width": 300}}
    assert all("path_b64" in output for output in detail["outputs"]) and len(list(bed.out.iterdir())) == 2
    bed.close()
