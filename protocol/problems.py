"""From a `Problem` on the wire back to the exception it was made of."""

from collections.abc import Iterator

from protocol.errors import GalleryError, MachineError, NoSupervisor, Refused, UsageError, WaitedTooLong
from protocol.messages import Problem


def error_of(problem: Problem) -> GalleryError:
    """Returns the exception of a Problem: the class of its code, else the nearest one of its exit code."""
    fallback = {2: UsageError, 3: NoSupervisor, 4: Refused, 5: WaitedTooLong}.get(problem.exit_code)
    if fallback is None:
        fallback = MachineError if problem.fault == "machine" else GalleryError
    kind = next((k for k in _subclasses(GalleryError) if k.__dict__.get("code") == problem.code), fallback)
    error = kind.__new__(kind)
    Exception.__init__(error, problem.message)
    error.__dict__.update(code=problem.code, fault=problem.fault, exit_code=problem.exit_code)
    return error


def _subclasses(kind: type[GalleryError]) -> Iterator[type[GalleryError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
