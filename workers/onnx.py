"""The runtime of ONNX models: loaded at a worker's first model, one thread, nothing kept between two inferences.

It starts a thread when it is imported, which a template must not have, so workers import it themselves. No arena and
no memory pattern: both would keep the peak of the largest image for ever. Measured on OCR's detector, at 960 x 960
pixels: 105 MB at the peak and 5 MB after, 225 MB and 200 MB with what the C library does by default
(`workers.models` has blocks given back at once).
"""

import functools
import os
from typing import Any

_COUNTED, _VARYING = 2, 0
_GRAPH = 7
_MOST_FIELDS = 10_000
"""Of the outermost message: a dozen, and one for each function and property of the model."""


@functools.cache
def runtime() -> Any:
    """Imports what runs models. Each library would otherwise start a thread for every core."""
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def session(model: bytes | str) -> Any:
    """Returns a session of a model, given as its bytes or by its path. Raises the runtime's own exceptions, which have
    no common base."""
    options = runtime().SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = runtime().ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4
    return runtime().InferenceSession(model, options, providers=["CPUExecutionProvider"])


def is_model(descriptor: int, size_bytes: int) -> bool:
    """Tells whether a file is built like an ONNX model (fields of a protobuf one after another up to its very end, a
    graph among them), without loading it: a cut download and a file of another kind are neither."""
    at, graph = 0, False
    for _ in range(_MOST_FIELDS):
        if at == size_bytes:
            return graph
        key, at = _number(descriptor, at)
        field, kind = key >> 3, key & 7
        if kind == _COUNTED:
            length, at = _number(descriptor, at)
            graph |= field == _GRAPH and length > 0
            at += length
        elif kind == _VARYING:
            _, at = _number(descriptor, at)
        else:
            return False
        if at > size_bytes:
            return False
    return False


def _number(descriptor: int, at: int) -> tuple[int, int]:
    """A number of varying length, and where it ends; where there is none, one that no file has."""
    value = 0
    for number, byte in enumerate(os.pread(descriptor, 10, at)):
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, at + number + 1
    return 0, 1 << 62


def is_for_memory(error: BaseException) -> bool:
    """Tells whether the runtime had no memory; what it raises has no class of its own."""
    return isinstance(error, MemoryError) or "alloc" in str(error).lower()


def said(error: Exception) -> str:
    """Returns what an exception of the runtime says, in one short line."""
    return " ".join(str(error).split())[:300]
