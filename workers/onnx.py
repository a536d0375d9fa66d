"""The runtime of ONNX models: loaded at a worker's first model, one thread, nothing kept between two inferences.

It starts a thread when it is imported, which a template must not have, so workers import it themselves. No arena and
no memory pattern: both would keep the peak of the largest image for ever. Measured on OCR's detector, at 960 x 960
pixels: 105 MB at the peak and 5 MB after, 225 MB and 200 MB with what the C library does by default
(`workers.models` has blocks given back at once).
"""

import functools
import os
from typing import Any


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


def said(error: Exception) -> str:
    """Returns what an exception of the runtime says, in one short line."""
    return " ".join(str(error).split())[:300]
