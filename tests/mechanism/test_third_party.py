"""Operations of other distributions: found, checked, and refused by name; and what their authors test them with."""

import io
import os
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from protocol.messages import Recipe, Step
from tests.end_to_end.example_operation import SEPIA
from tests.mechanism.real_pool import RealPool, real_pool
from workers import third_party
from workers.errors import RecipeError
from workers.operations import MODULES, Operation, Parameters, Work
from workers.testing import Failed, Trial, gradient

EXAMPLE = "tests.end_to_end.example_operation:SEPIA"


def install(directory: Path, name: str, *entries: str) -> None:
    """Lays down the metadata of an installed distribution with these entry points."""
    info = directory / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{third_party.GROUP}]", *entries]) + "\n")


def found_in(*directories: Path) -> list[EntryPoint]:
    """Returns the entry points of the distributions below directories."""
    found = distributions(path=[str(directory) for directory in directories])
    return [entry for each in found for entry in each.entry_points if entry.group == third_party.GROUP]


def test_an_operation_is_found_by_its_entry_point(tmp_path: Path) -> None:
    install(tmp_path, "old-photos", f"sepia = {EXAMPLE}")
    known = third_party.registry(MODULES, found_in(tmp_path))
    assert third_party.fetch(known["sepia"]) is SEPIA


def test_two_operations_of_one_name_are_refused_with_both_names(tmp_path: Path) -> None:
    install(tmp_path / "a", "old-photos", f"sepia = {EXAMPLE}")
    install(tmp_path / "b", "brown-photos", "sepia = brown:SEPIA")
    with pytest.raises(RecipeError) as refused:
        third_party.registry(MODULES, found_in(tmp_path / "a", tmp_path / "b"))
    assert all(name in str(refused.value) for name in ("'sepia'", "old-photos 1.0", "brown-photos 1.0"))


def test_the_name_of_an_operation_of_ours_is_taken(tmp_path: Path) -> None:
    install(tmp_path, "better", "thumbnail = better:THUMBNAIL")
    with pytest.raises(RecipeError, match=r"'thumbnail'.*gallery-supervisor itself.*better 1\.0"):
        third_party.registry(MODULES, found_in(tmp_path))


@pytest.mark.parametrize(
    ("value", "told"),
    [("no_such_module:X", "No module named"), ("os:sep", "not a workers.operations.Operation named 'sepia'")],
)
def test_what_cannot_be_used_names_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, told: str
) -> None:
    from workers.operations import load

    install(tmp_path, "old-photos", f"sepia = {value}")
    monkeypatch.setattr(third_party, "entry_points", lambda group: found_in(tmp_path))
    third_party.installed.cache_clear()
    try:
        with pytest.raises(RecipeError, match=told) as refused:
            load("sepia")
        assert "old-photos 1.0" in str(refused.value)
    finally:
        third_party.installed.cache_clear()


# ---- helpers for authors ---------------------------------------------------------------------------


def test_a_trial_runs_an_operation_on_an_image_made_in_memory() -> None:
    with Trial(SEPIA, {"size": 100}) as trial:
        result = trial.run(gradient(400, 300))
    toned = result.outputs["sepia.jpg"]
    assert toned.size == (100, 75) and toned.mode == "RGB"
    assert 100 < result.values["brightness"] < 160
    assert not result.warnings


def test_a_trial_refuses_parameters_as_a_recipe_does() -> None:
    with pytest.raises(RecipeError, match="its parameters are: size, quality"):
        Trial(SEPIA, {"siez": 100})


def test_a_trial_tells_the_verdict_on_a_bad_image() -> None:
    with Trial(SEPIA) as trial, pytest.raises(Failed) as failed:
        trial.run(b"no image at all", name="a.jpg")
    assert failed.value.kind in ("corrupt", "unsupported")


_kept: list[Any] = []


def _leak(work: Work, parameters: Parameters) -> None:
    _kept.append(bytearray(os.urandom(1_000_000)))


def _hoard(work: Work, parameters: Parameters) -> None:
    _kept.append([object() for _ in range(500)])


def test_a_leak_is_found_and_a_clean_operation_is_not_accused() -> None:
    with Trial(SEPIA, {"size": 64}) as trial:
        trial.assert_no_leak(gradient(200, 200))
    for run, told in ((_leak, "bytes behind"), (_hoard, "objects behind")):
        leaky = Operation(name="leaky", version=1, reads="name", run=run)
        with Trial(leaky) as trial, pytest.raises(AssertionError, match=told):
            trial.assert_no_leak(gradient(8, 8))
        _kept.clear()


# ---- in a template ---------------------------------------------------------------------------------


def _recipe(**parameters: Any) -> Recipe:
    return Recipe(name="old", steps=[Step(operation="sepia", parameters=parameters)])


def test_a_real_worker_runs_an_installed_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "old-photos", f"sepia = {EXAMPLE}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with real_pool([_recipe(size=32)]) as pool:
        buffer = io.BytesIO()
        gradient(64, 64).save(buffer, "PNG")
        Path(pool.photos, "a.png").write_bytes(buffer.getvalue())
        out = tmp_path / "out"
        _work(pool, out)
        with Image.open(out / "a.png.sepia.jpg") as toned:
            assert toned.size == (32, 32)


def _work(pool: RealPool, out: Path) -> None:
    from protocol.messages import Ready

    worker = pool.start(sandbox="best-effort", roots_read=[pool.photos], roots_write=[str(out)])
    pool.receive(Ready)
    report = pool.reports(pool.grant(worker, _recipe(size=32), ["a.png"], out=str(out)))[-1]
    assert [item.outcome for item in report.items] == ["done"], report.items


def test_a_clash_stops_the_start_with_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from supervisor.mechanism.processes import StartError

    install(tmp_path, "better", "probe = better:PROBE")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with real_pool([]) as pool, pytest.raises(StartError, match=r"'probe'.*gallery-supervisor itself.*better 1\.0"):
        pool.start()
