"""Does nothing and does not look at the file: what is left is the cost of the pool itself."""

from typing import Any

from workers.operations import Operation, Parameters, Work


def _run(work: Work, parameters: Parameters) -> dict[str, Any] | None:
    return None


OPERATIONS = (Operation(name="noop", version=1, reads="nothing", run=_run),)
