"""Vectors of images by any ONNX image model: pictures of the same kind of thing point the same way.

The model is the user's, named by its path. The template opens and hashes it, so the hash is part of the operation's
version; a worker reads it at its first image through the descriptor it inherits, which a sandbox leaves open, under a
memory lease (`workers.models`).

The result is scaled to length 1 and given as Base64 of float16 (little-endian), 1.4 KB for 512 numbers: `supervisor
duplicates --by vector` finds what is near. One model a recipe: the values of a second one would replace the first's.
"""

import base64
import functools
import hashlib
import math
import os
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from PIL import Image

from workers import onnx
from workers.errors import MachineTrouble, NoMemory, NoMemoryNow, Verdict
from workers.images.encode import flatten
from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

MAX_SIZE = 2048
MAX_MODEL_BYTES = 2 * 1024**3
MAX_NUMBERS = 8192
_RUNTIME_BYTES = 45_000_000
"""The runtime and numpy, which come with the first model; measured as 38 MB."""
_PIECE_BYTES = 1024 * 1024
_WIDEST = 4
"""A picture longer than so many times its width is squeezed a little before it is cropped, not decoded in full."""
_MISSING = "{} not installed: install the extra, pip install 'gallery-supervisor[embed]'"


class Embed(Parameters, frozen=True, kw_only=True):
    """`model` is the path of the ONNX file; `size` the side in pixels of its input. A pixel from 0 to 255 becomes
    (value / 255 - mean) / deviation, by channel in the order of `channels`; a model of uint8 is given it as it is.
    `fit`: the middle is cropped, or the whole is squashed into the square. `output` names the result that is taken, the
    first where it is empty."""

    model: str
    size: int = 224
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr"] = "rgb"
    fit: Literal["crop", "squash"] = "crop"
    output: str = ""


class _Model(NamedTuple):
    descriptor: int
    size_bytes: int
    digest: str


@functools.cache
def _model(path: str) -> _Model:
    """Opens the file for as long as the process lives. Raises ValueError that says why it cannot be used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes > MAX_MODEL_BYTES:
            raise ValueError(f"model: {path} has {size_bytes:,} bytes; the limit is {MAX_MODEL_BYTES:,}")
        if not onnx.is_model(descriptor, size_bytes):
            raise ValueError(f"model: {path} is no ONNX model, or not a whole one ({size_bytes:,} bytes)")
        return _Model(descriptor, size_bytes, _digest(descriptor))
    except OSError as error:
        raise ValueError(f"model: {path} cannot be read: {error.strerror}") from error


def _digest(descriptor: int) -> str:
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(descriptor, _PIECE_BYTES, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _check(parameters: Embed) -> None:
    if not 1 <= parameters.size <= MAX_SIZE:
        raise ValueError(f"size: {parameters.size} pixels; 1 to {MAX_SIZE} are possible")
    if not all(math.isfinite(each) and each for each in parameters.deviation):
        raise ValueError(f"deviation: {parameters.deviation}: each must be a number other than 0")
    _model(parameters.model)
    missing = [name for name in ("numpy", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ValueError(_MISSING.format(", ".join(missing)))


_refused: dict[str, str] = {}
"""What the runtime said of models that it cannot run, by digest: each image would ask it again."""


def _load(path: str) -> Any:
    """Loads the model into this process. Raises MachineTrouble, and Verdict where the runtime cannot run it."""
    model = _model(path)
    content = b"".join(os.pread(model.descriptor, _PIECE_BYTES, at) for at in range(0, model.size_bytes, _PIECE_BYTES))
    if hashlib.sha256(content).hexdigest() != model.digest:
        raise MachineTrouble(f"the model {path} was changed while it was in use: start the supervisor again")
    try:
        return onnx.session(content)
    except Exception as error:  # its own exceptions have no common base
        message = f"the model {path} cannot be loaded: {onnx.said(error)}"
        if onnx.is_for_memory(error):
            raise NoMemoryNow(message) from error
        _refused[model.digest] = message
        raise Verdict("unsupported", message) from error


def _run(work: Work, parameters: Embed) -> dict[str, Any]:
    width, height = work.source.header.upright
    model = _model(parameters.model)
    if model.digest in _refused:
        raise Verdict("unsupported", _refused[model.digest])
    name = f"{os.path.basename(parameters.model)[:60]} {model.digest[:16]}"
    session = work.models.use(name, lambda: _load(parameters.model), _RUNTIME_BYTES + 2 * model.size_bytes)
    names = [each.name for each in session.get_outputs()]
    if parameters.output and parameters.output not in names:
        raise Verdict("unsupported", f"the model {parameters.model} has no output {parameters.output!r}: {names}")
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise Verdict(
            "unsupported",
            f"the model {parameters.model} has {len(inputs)} inputs, and one image is all there is to give: "
            + ", ".join(_wants(each) for each in inputs),
        )
    given = _as_wanted(prepared(_picture(work, parameters), parameters), inputs[0], parameters)
    needs = _inference_bytes(parameters)
    try:
        with work.memory(needs, purpose="inference"):
            found = session.run([parameters.output or names[0]], {inputs[0].name: given})[0]
    except NoMemory:
        raise
    except Exception as error:  # its own exceptions have no common base
        if onnx.is_for_memory(error):
            raise MemoryError(onnx.said(error)) from error
        raise Verdict(
            "unsupported",
            f"the model {parameters.model} does not take {given.shape} of {given.dtype}, its input is "
            f"{_wants(inputs[0])} (size, layout): {onnx.said(error)}",
        ) from error
    return {
        "vector": base64.b64encode(unit(found, parameters.model)).decode("ascii"),
        "model": model.digest[:16],
        "width": width,
        "height": height,
    }


def _wants(wanted: Any) -> str:
    """An input as the model tells it: its name, type and shape."""
    return f"{wanted.name} {wanted.type.removeprefix('tensor')} {wanted.shape}"


def _as_wanted(numbers: Any, wanted: Any, parameters: Embed) -> Any:
    """The numbers in the type of the model's input. One of whole numbers is given the pixels as they are, 0 to 255.
    Raises Verdict."""
    import numpy

    if wanted.type == "tensor(uint8)":
        if any(parameters.mean) or any(each != 1 for each in parameters.deviation):
            raise Verdict(
                "unsupported",
                f"the model {parameters.model} takes pixels from 0 to 255, {_wants(wanted)}: "
                "leave out mean and deviation",
            )
        return numpy.rint(numbers * 255).astype("uint8")
    types = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    if wanted.type not in types:
        raise Verdict(
            "unsupported", f"the model {parameters.model} takes {_wants(wanted)}, and an image is no such thing"
        )
    return numbers.astype(types[wanted.type], copy=False)


def _picture(work: Work, parameters: Embed) -> Image.Image:
    """The square that the model sees."""
    size = parameters.size
    if parameters.fit == "squash":
        return flatten(work.source.picture(size, size)).convert("RGB")
    width, height = work.source.header.upright
    scale = size / min(width, height)
    wide, high = (min(size * _WIDEST, max(size, round(side * scale))) for side in (width, height))
    left, top = (wide - size) // 2, (high - size) // 2
    return flatten(work.source.picture(wide, high)).convert("RGB").crop((left, top, left + size, top + size))


def prepared(picture: Image.Image, parameters: Embed) -> Any:
    """Returns a picture as the array a model takes: float32, one image."""
    import numpy

    pixels = numpy.asarray(picture, "float32") / 255
    if parameters.channels == "bgr":
        pixels = pixels[:, :, ::-1]
    pixels = (pixels - numpy.asarray(parameters.mean, "float32")) / numpy.asarray(parameters.deviation, "float32")
    return numpy.ascontiguousarray(pixels.transpose(2, 0, 1) if parameters.layout == "nchw" else pixels)[None]


def unit(found: Any, model: str) -> bytes:
    """Returns a model's output scaled to length 1, as float16. Raises Verdict where it is no vector."""
    import numpy

    vector = numpy.asarray(found, "float32").reshape(-1)
    length = float(numpy.linalg.norm(vector))
    if not 1 <= vector.size <= MAX_NUMBERS or not math.isfinite(length):
        raise Verdict("unsupported", f"the model {model} gave {vector.size:,} numbers of length {length}: no vector")
    content: bytes = (vector / max(length, 1e-12)).astype("<f2").tobytes()
    return content


def _side(header: Header, parameters: Embed) -> int:
    width, height = header.upright
    longest = parameters.size * max(width, height) / min(width, height)
    return min(max(width, height), math.ceil(min(longest, parameters.size * _WIDEST)))


def _beside(header: Header, parameters: Embed) -> int:
    return _inference_bytes(parameters)


def _inference_bytes(parameters: Embed) -> int:
    """What one picture takes beside the model: its pixels as numbers several times, and the model's widest layers."""
    return 40 * parameters.size**2 * _WIDEST


OPERATIONS = (
    Operation(
        name="embed",
        version=1,
        reads="pixels",
        run=_run,
        parameters=Embed,
        side=_side,
        beside=_beside,
        check=_check,
        edition=lambda parameters: f"-{_model(parameters.model).digest[:16]}",
    ),
)
