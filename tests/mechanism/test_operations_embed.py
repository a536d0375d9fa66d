"""The operation `embed`: a tiny model of our own gives each image its vector; what it lacks is said."""

import base64
import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.galleries import write
from tests.mechanism.performing import Bench, recipe_of, step, values
from tests.onnx_models import INT64, UINT8, pooling_model
from workers import specimens
from workers.errors import RecipeError

missing = [name for name in ("numpy", "onnxruntime") if find_spec(name) is None]
needs_runtime = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (the extra 'embed')")


def embedded(
    tmp_path: Path, name: str, image: bytes, content: bytes | None = None, size: int = 32, **parameters: Any
) -> dict[str, Any]:
    """Returns what the operation tells of one image, its vector as numbers."""
    import numpy

    content = pooling_model() if content is None else content
    model = write(tmp_path, f"{hashlib.sha256(content).hexdigest()}.onnx", content)
    bench = Bench(tmp_path)
    report = bench.run(write(tmp_path, name, image), step("embed", model=os.fsdecode(model), size=size, **parameters))
    assert report.error is None, report.error
    told: dict[str, Any] = values(report)["embed"]
    return told | {"numbers": numpy.frombuffer(base64.b64decode(told["vector"]), "<f2").astype("float32")}


@needs_runtime
def test_a_vector_is_what_the_model_makes_of_the_pixels(tmp_path: Path) -> None:
    import numpy

    picture = specimens.photo(640, 320, seed=3)
    told = embedded(tmp_path, "a.png", specimens.encoded(picture, "PNG"), mean=[0.5, 0.5, 0.5])
    assert (told["width"], told["height"], len(told["model"])) == (640, 320, 16)
    square = numpy.asarray(picture.crop((160, 0, 480, 320)), "float32") / 255 - 0.5
    cells = square.reshape(4, 80, 4, 80, 3).mean(axis=(1, 3)).transpose(2, 0, 1).reshape(-1)
    assert float(told["numbers"] @ (cells / numpy.linalg.norm(cells))) > 0.99
    assert float(numpy.linalg.norm(told["numbers"])) == pytest.approx(1, abs=0.01)


@needs_runtime
def test_alike_pictures_are_near_and_others_are_not(tmp_path: Path) -> None:
    picture = specimens.photo(640, 480, seed=3)
    mean = [0.5, 0.5, 0.5]
    first = embedded(tmp_path, "a.jpg", specimens.jpeg(picture), mean=mean)
    alike = embedded(tmp_path, "b.png", specimens.encoded(picture.resize((320, 240)), "PNG"), mean=mean)
    turned = embedded(tmp_path, "c.jpg", specimens.jpeg(picture, orientation=6), mean=mean)
    other = embedded(tmp_path, "d.jpg", specimens.jpeg(specimens.photo(640, 480, seed=4)), mean=mean)
    squashed = embedded(tmp_path, "a.jpg", specimens.jpeg(picture), mean=mean, fit="squash", channels="bgr")
    near = float(first["numbers"] @ alike["numbers"])
    assert near > 0.98 and float(first["numbers"] @ turned["numbers"]) > 0.98
    assert float(first["numbers"] @ other["numbers"]) < near - 0.02
    assert float(first["numbers"] @ squashed["numbers"]) < 0.98


@needs_runtime
def test_the_version_tells_the_model_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    small, large = write(tmp_path, "s.onnx", pooling_model()), write(tmp_path, "l.onnx", pooling_model(64))
    versions = {recipe_of(step("embed", model=os.fsdecode(path))).version for path in (small, large)}
    assert len(versions) == 2 and all(version.startswith("embed:1-") for version in versions)
    image = write(tmp_path, "a.jpg", specimens.jpeg(specimens.photo(64, 64, seed=1)))
    report = Bench(tmp_path).run(image, step("embed", model=os.fsdecode(small), size=64))
    assert report.error is not None and "does not take (1, 3, 64, 64)" in report.error.message
    report = Bench(tmp_path).run(image, step("embed", model=os.fsdecode(small), size=32, output="logits"))
    assert report.error is not None and "no output 'logits'" in report.error.message


@needs_runtime
def test_inputs_of_other_types_and_layouts_and_of_any_size_are_given_what_they_take(tmp_path: Path) -> None:
    photo = specimens.jpeg(specimens.photo(160, 160, seed=5))
    plain = embedded(tmp_path, "a.jpg", photo)["numbers"]
    cases: list[tuple[bytes, dict[str, Any]]] = [
        (pooling_model(kind=UINT8), {}),
        (pooling_model(nhwc=True), {"layout": "nhwc"}),
        (pooling_model(kind=UINT8, nhwc=True, dynamic=True), {"layout": "nhwc"}),
        (pooling_model(dynamic=True), {}),
    ]
    for model, parameters in cases:
        found = embedded(tmp_path, "a.jpg", photo, content=model, **parameters)["numbers"]
        assert float(found @ plain) > 0.999
    assert len(embedded(tmp_path, "a.jpg", photo, content=pooling_model(dynamic=True), size=64)["numbers"]) == 4 * 48


@needs_runtime
@pytest.mark.parametrize(
    ("content", "parameters", "sentence"),
    [
        (
            pooling_model(inputs=2),
            {},
            "has 2 inputs, and one image is all there is to give: image (float) [1, 3, 32, 32], ",
        ),
        (
            pooling_model(nhwc=True),
            {},
            "does not take (1, 3, 32, 32) of float32, its input is image (float) [1, 32, 32, 3]",
        ),
        (pooling_model(kind=INT64), {}, "takes image (int64) [1, 3, 32, 32], and an image is no such thing"),
        (pooling_model(kind=UINT8), {"mean": [0.5, 0.5, 0.5]}, "leave out mean and deviation"),
        (pooling_model(operator="NoSuchThing"), {}, "cannot be loaded: "),
    ],
)
def test_a_model_that_cannot_be_used_is_every_images_verdict_and_says_why(
    tmp_path: Path, content: bytes, parameters: dict[str, Any], sentence: str
) -> None:
    model = os.fsdecode(write(tmp_path, "m.onnx", content))
    image = write(tmp_path, "a.jpg", specimens.jpeg(specimens.photo(64, 64, seed=1)))
    for _ in range(2):
        report = Bench(tmp_path).run(image, step("embed", model=model, size=32, **parameters))
        assert report.outcome == "failed" and report.error is not None and report.error.kind == "unsupported", report
        assert sentence in report.error.message and model in report.error.message


def test_what_is_no_model_is_refused_before_any_image(tmp_path: Path) -> None:
    whole = pooling_model()
    photo = specimens.jpeg(specimens.photo(64, 64, seed=1))
    for content in (b"", b"no model at all", photo, whole[:-1], whole[: len(whole) // 2], whole + b"x", b"\x08\x08"):
        path = os.fsdecode(write(tmp_path, "m.onnx", content))
        with pytest.raises(
            RecipeError, match=rf"m.onnx is no ONNX model, or not a whole one \({len(content):,} bytes\)"
        ):
            recipe_of(step("embed", model=path))


def test_parameters_that_cannot_be_are_refused_before_any_image(tmp_path: Path) -> None:
    model = os.fsdecode(write(tmp_path, "m.onnx", pooling_model()))
    for parameters, sentence in (
        ({"model": str(tmp_path / "none.onnx")}, "none.onnx cannot be read: No such file"),
        ({"model": model, "size": 0}, "1 to 2048"),
        ({"model": model, "deviation": [1, 0, 1]}, "other than 0"),
        ({"model": model, "layout": "chw"}, "layout"),
        ({}, "model"),
    ):
        with pytest.raises(RecipeError, match=sentence):
            recipe_of(step("embed", **parameters))


@pytest.mark.skipif(not missing, reason="onnxruntime is installed")
def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    model = os.fsdecode(write(tmp_path, "m.onnx", pooling_model()))
    with pytest.raises(RecipeError, match=r"install the extra, pip install 'gallery-supervisor\[embed\]'"):
        recipe_of(step("embed", model=model))
