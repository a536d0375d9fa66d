"""The demo as a newcomer runs it, and that it does not praise what did not happen."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.messages import BatchProgress, Counts, Decision, Summary, WorkerStatus
from supervisor.cli.demo import CRASHING
from supervisor.cli.demo_story import BAD, GIANT, HALF, Seen, Story, is_whole_webp, unsound_outputs
from workers.specimens import CRASHING_NAME, oddities

ROOT = Path(__file__).parents[2]
DEMO_SECONDS = 90


def run_demo(temporary: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs the demo in a directory that is not ours, with a temporary directory that can be looked into."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "SUPERVISOR_WORKERS": "nonsense"}
    command = [sys.executable, "-m", "supervisor", "demo", *flags]
    return subprocess.run(command, cwd=temporary, env=environment, capture_output=True, text=True, timeout=DEMO_SECONDS)


def test_the_demo_keeps_its_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ended = run_demo(tmp_path, "--json")
    told = json.loads(ended.stdout)
    broken = [promise for promise in told["promises"] if not promise["kept"]]
    assert (ended.returncode, broken) == (0, []), ended.stderr
    assert told["kept"] and len(told["promises"]) == 9
    summary = told["summary"]
    assert summary["items"] == 100 == summary["done"] + summary["failed"] + summary["quarantined"]
    assert (summary["failed"], summary["quarantined"]) == (3, 1)
    assert summary["batch_shrinks"] and summary["recycles"]["memory"] and summary["restarts"] >= 3
    assert os.listdir(tmp_path) == []


def seen_well() -> Seen:
    """What a run looks like in which everything promised happened."""
    names = [*BAD, HALF, GIANT, CRASHING, "photo.jpg"]
    results: list[dict[str, Any]] = []
    for name in names:
        row: dict[str, Any] = {"path": f"/g/{name}", "state": "done", "error": None, "warnings": [], "worker": 0}
        row["outputs"] = [{"path": f"/out/{name}.{size}.webp"} for size in (256, 1024)]
        if name in BAD:
            row |= {"state": "failed", "error": {"kind": BAD[name], "message": "bad"}, "outputs": []}
        if name == CRASHING:
            row |= {"state": "quarantined", "error": {"kind": "crash", "message": "it crashes"}, "outputs": []}
        row["warnings"] = ["cut short"] if name == HALF else []
        results.append(row)
    crashing, photo = f"/g/{CRASHING}", "/g/photo.jpg"
    story: list[tuple[str, str | None, dict[str, Any]]] = [
        ("death", crashing, {"cause": "signal 11"}), ("charged", crashing, {}), ("death", crashing, {}),
        ("quarantined", crashing, {}), ("death", photo, {"cause": "killed_outside"}), ("returned", photo, {}),
        ("shrunk", None, {"before": 4, "after": 2}), ("recycle", None, {"reason": "memory"}),
    ]  # fmt: skip
    decisions = [
        Decision(
            number=n,
            at=0.0,
            kind=kind,
            message=f"{kind} (pid {7 if path == photo else 6})",
            slot=0,
            path=path,
            figures=figures,
        )
        for n, (kind, path, figures) in enumerate(story, start=1)
    ]
    summary = Summary(seconds=1.0, peak_bytes=9, budget_bytes=10, recycles={"memory": 1}, restarts=3, batch_shrinks=1)
    progress = BatchProgress(
        batch="b", state="finished", open=False, recipe="demo", out="/out", items=7, ignored=0,
        counts=Counts(done=3, failed=3, quarantined=1), summary=summary,
    )  # fmt: skip
    killed = WorkerStatus(
        slot=0, pid=7, state="BUSY", rss_bytes=1, private_bytes=1, baseline_bytes=1, soft_bytes=2, hard_bytes=3,
        batch_size=1, items_done=1, current=None, recycles=0, restarts=0, last_death=None,
    )  # fmt: skip
    return Seen(
        gallery="/g", files=names, results=results, decisions=decisions, progress=progress, killed=killed, workers=4,
        crashing=CRASHING, missing=[], strange=[], largest_batch=8,
    )  # fmt: skip


def without(seen: Seen, kind: str) -> Seen:
    """The same run without the decisions of a kind."""
    return msgspec.structs.replace(seen, decisions=[one for one in seen.decisions if one.kind != kind])


def test_a_run_in_which_everything_happened_keeps_every_promise() -> None:
    assert [promise.name for promise in Story(seen_well()).promises if not promise.kept] == []


def test_leases_that_were_of_one_image_all_along_need_not_shrink() -> None:
    slow = msgspec.structs.replace(without(seen_well(), "shrunk"), largest_batch=1)
    (shrunk,) = (promise for promise in Story(slow).promises if promise.name == "shrunk")
    assert shrunk.kept and "of one image" in shrunk.text


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("verdicts", {"files": [*seen_well().files, "lost.jpg"]}),
        ("verdicts", {"results": seen_well().results[1:]}),
        ("outputs", {"missing": ["photo.jpg.256.webp"]}),
        ("outputs", {"strange": [".photo.jpg.part"]}),
        ("killed", {"killed": None}),
        ("bad_files", {"results": [r for r in seen_well().results if not r["path"].endswith("empty.jpg")]}),
        ("memory", {"progress": {"peak_bytes": 11}}),
        ("recycled", {"progress": {"recycles": {}}}),
        ("replaced", {"progress": {"restarts": 0}}),
        ("shrunk", "shrunk"),
        ("crash", "quarantined charged death"),
        ("killed", "returned"),
        ("killed", "death"),
    ],
)
def test_what_did_not_happen_is_told(name: str, change: dict[str, Any] | str) -> None:
    seen = seen_well()
    if isinstance(change, str):
        for kind in change.split():
            seen = without(seen, kind)
    elif "progress" in change:
        summary = msgspec.structs.replace(seen.progress.summary, **change["progress"])
        seen = msgspec.structs.replace(seen, progress=msgspec.structs.replace(seen.progress, summary=summary))
    else:
        seen = msgspec.structs.replace(seen, **change)
    story = Story(seen)
    assert name in [promise.name for promise in story.promises if not promise.kept]
    assert not story.kept and any("FAIL" in line for line in story.lines())


def test_outputs_that_are_cut_short_missing_or_nobodys_are_found(tmp_path: Path) -> None:
    whole = b"RIFF" + (4).to_bytes(4, "little") + b"WEBP"
    for name, content in (("a.webp", whole), ("cut.webp", whole[:-2]), (".left.part", b"")):
        (tmp_path / name).write_bytes(content)
    results = [{"outputs": [{"path": str(tmp_path / name)} for name in ("a.webp", "cut.webp", "gone.webp")]}]
    assert is_whole_webp(str(tmp_path / "a.webp"))
    assert unsound_outputs(str(tmp_path), results) == (["cut.webp", "gone.webp"], [".left.part"])


def test_the_gallery_has_the_files_that_the_story_is_about() -> None:
    made = {name for name, _ in oddities(giant_megapixels=1)}
    assert {*BAD, HALF, GIANT, CRASHING} <= made and CRASHING == CRASHING_NAME
