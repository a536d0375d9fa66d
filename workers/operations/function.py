"""A plain function of the caller's, as an operation: the embedded API's (`supervisor.embedded`).

The function was pickled by value into a file of the state directory before the supervisor started. The
template, which compiles every recipe, loads it: workers are forked with it. It is called with the path of each
image, and its answer, anything that has a form in JSON, becomes the item's value.
"""

import functools
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from workers.operations import Operation, Parameters, Work


class Function(Parameters, frozen=True, kw_only=True):
    """`file`: where the pickled function is; `digest`: SHA-256 of that file, in hexadecimal digits."""

    file: str
    digest: str


@functools.cache
def _function(file: str, digest: str) -> Callable[[str], Any]:
    """Loads the function. Raises ValueError that says why it cannot be."""
    try:
        with open(file, "rb") as opened:
            content = opened.read()
    except OSError as error:
        raise ValueError(f"file: {file} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"file: {file} is not the one that was meant (its digest differs)")
    paths, pickled = pickle.loads(content)
    sys.path += [path for path in paths if path not in sys.path]
    try:
        found: Callable[[str], Any] = pickle.loads(pickled)
    except Exception as error:  # what it needs may be missing here in any way
        raise ValueError(f"the function cannot be loaded in a worker: {type(error).__name__}: {error}") from error
    return found


def _check(parameters: Function) -> None:
    _function(parameters.file, parameters.digest)


def _run(work: Work, parameters: Function) -> dict[str, Any]:
    value = _function(parameters.file, parameters.digest)(os.fsdecode(work.path))
    return {"value": msgspec.to_builtins(value, str_keys=True)}


OPERATIONS = (
    Operation(
        name="function", version=1, reads="name", run=_run, parameters=Function, check=_check,
        edition=lambda parameters: f"-{parameters.digest[:16]}",
    ),
)  # fmt: skip
