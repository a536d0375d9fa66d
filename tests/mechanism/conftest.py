"""What a worker changes in its own process, undone where a test does a worker's work in this one."""

import os
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _temp_directory_as_before() -> Iterator[None]:
    """An operation's temp directory is that of the process (`workers.scratch`)."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    yield
    variable, tempfile.tempdir = before
    if variable is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = variable
