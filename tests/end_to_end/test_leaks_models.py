"""A leak of a real model's session: told with its name, and no model is blamed for what another step keeps."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.bed import ROOT, Bed, make_bed
from tests.onnx_models import pooling_model

missing = [name for name in ("numpy", "onnxruntime") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (the extra 'embed')")

OPERATION = '''
"""An operation whose model keeps something of every inference."""

from tests.onnx_models import pooling_model
from workers import onnx
from workers.operations import Operation, Parameters, Work

KEPT = []


def run(work: Work, parameters: Parameters) -> dict[str, object]:
    session = work.models.use("hoarder", lambda: onnx.session(pooling_model()), 60_000_000)
    import numpy  # it starts threads, which the template must not have

    picture = numpy.asarray(work.source.decoded(32).resize((32, 32)).convert("RGB"), "float32") / 255
    (found,) = session.run(None, {"image": picture.transpose(2, 0, 1)[None]})
    KEPT.append(numpy.tile(found, (2_000, 1)))
    return {"mean": float(found.mean())}


HOARD = Operation(
    name="hoard", version=1, reads="pixels", run=run, parameters=Parameters, side=lambda header, parameters: 32
)
'''
IMAGES = 200


def _install(directory: Path) -> None:
    info = directory / "hoard-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hoard\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gallery_supervisor.operations]\nhoard = hoarding:HOARD\n")
    (directory / "hoarding.py").write_text(OPERATION)


def _leaks(bed: Bed, recipe: str) -> list[dict[str, Any]]:
    client = bed.client()
    assert client.wait(bed.submit(client, bed.fill(IMAGES), recipe=recipe, out=None)).counts.done == IMAGES
    found: list[dict[str, Any]] = bed.run("leaks", "--json").last["leaks"]
    return [leak for leak in found if leak["subject_kind"] != "worker"]


def test_the_model_that_grows_is_named_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    _install(tmp_path)
    (tmp_path / "model.onnx").write_bytes(pooling_model())
    embed = {"operation": "embed", "model": os.fspath(tmp_path / "model.onnx"), "size": 32}
    with make_bed() as bed:
        bed.environment["PYTHONPATH"] = f"{ROOT}:{tmp_path}"
        bed.write_config(
            guilty=[{"operation": "hoard"}],
            innocent=[embed, {"operation": "misbehave.leak", "bytes": 200_000, "native": True}],
        )
        bed.start(workers="1", memory="2G")
        told = _leaks(bed, "innocent")
        assert {(leak["subject_kind"], leak["subject"]) for leak in told} == {("operation", "misbehave.leak")}
        assert told[0]["where"] == "native", "a step that leaves none of Python's blocks"

        told = [leak for leak in _leaks(bed, "guilty") if leak["subject"] in ("hoard", "hoarder")]
        assert [leak["subject_kind"] for leak in told] == ["operation", "model"]
        assert told[1]["bytes_per_item"] > 100_000
        assert "model hoarder leaks where hoard uses it" in bed.run("leaks").out
        kinds = [each.message for each in bed.client().decisions(after=0, limit=1000) if each.kind == "leak"]
        assert any("model hoarder leaks" in message for message in kinds)
