"""Errors by whose fault they are; each class makes its own sentence from facts.

`caller` used a command or a request wrongly · `peer` sent bytes that are no message · `image` is a file
that cannot be processed (its verdict) · `machine` is a full disk, a missing right, no memory.
"""

from typing import ClassVar, Literal

Fault = Literal["caller", "peer", "image", "machine", "ours"]


class GalleryError(Exception):
    """Base of every error this project raises on purpose."""

    fault: ClassVar[Fault] = "ours"
    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 70


class UsageError(GalleryError):
    """The caller asked for something that cannot be: wrong option, unknown batch, bad setting."""

    fault = "caller"
    code = "usage"
    exit_code = 2


class UnknownBatch(UsageError):
    """No batch of that name is known."""

    code = "unknown_batch"

    def __init__(self, batch: str, *, unfinished: bool = False) -> None:
        what = "unfinished batch" if unfinished else "batch"
        why = ": it is over, or never was" if unfinished else ""
        super().__init__(f"no {what} {batch!r} is known here{why}; 'supervisor batches' lists them")


class UnknownRecipe(UsageError):
    """No recipe of that name is configured."""

    code = "unknown_recipe"

    def __init__(self, recipe: str, known: list[str]) -> None:
        extra = ""
        if recipe == "ocr":
            extra = "; it needs an extra where the supervisor is installed: pip install 'gallery-supervisor[ocr]'"
        names = ", ".join(sorted(known))
        super().__init__(f"no recipe {recipe!r}{extra}; known: {names} ('supervisor recipes' shows them)")


class OutputClash(UsageError):
    """Two different inputs would write the same outputs."""

    code = "clash"

    def __init__(self, first: str, second: str, stem: str) -> None:
        super().__init__(
            f"{first} and {second} would both be written as {stem!r} below the output directory; "
            "submit them to different --out directories, or name a common --base"
        )


class Refused(GalleryError):
    """The request is sound, but not now: busy, draining, not permitted."""

    fault = "machine"
    code = "busy"
    exit_code = 4


class Abandoned(Refused):
    """The batch was closed meanwhile, because who filled it was not heard of for too long."""

    code = "abandoned"

    def __init__(self, batch: str, items: int) -> None:
        super().__init__(
            f"batch {batch!r} was closed with the {items:,} images it has, because nothing was heard of its client for "
            f"longer than abandon_after; 'supervisor submit' of the same with --batch {batch}, or the same "
            "'supervisor run', goes on where it stopped"
        )


class NoSupervisor(GalleryError):
    """Nothing answers at the endpoint."""

    fault = "machine"
    code = "no_supervisor"
    exit_code = 3


class WaitedTooLong(GalleryError):
    """The caller's own time limit passed."""

    fault = "caller"
    code = "timeout"
    exit_code = 5


class BadMessage(GalleryError):
    """Bytes that are no message of this protocol."""

    fault = "peer"
    code = "bad_message"
    exit_code = 70


class FrameTooLarge(BadMessage):
    """A frame above the limit; it was not parsed."""

    code = "too_large"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"message of {size_bytes:,} bytes refused: the limit is {limit_bytes:,}; send fewer names at a time"
        )


class WrongVersion(BadMessage):
    """The peer speaks another version of the protocol."""

    code = "wrong_version"

    def __init__(self, got: object, want: int) -> None:
        super().__init__(f"protocol version {got!r} is not spoken here: this supervisor speaks version {want}")


class MachineError(GalleryError):
    """The machine cannot do it now: disk full, no right, no memory."""

    fault = "machine"
    code = "machine"
    exit_code = 70


class StateDirectoryBusy(MachineError):
    """Another supervisor owns the state directory."""

    code = "state_busy"
    exit_code = 4

    def __init__(self, directory: str, pid: int | None) -> None:
        owner = f"pid {pid}" if pid else "another process"
        super().__init__(
            f"the state directory {directory} is in use by the supervisor with {owner}; "
            "stop it ('supervisor stop') or choose another directory with --state"
        )


class StateDirectoryUnusable(MachineError):
    """The state directory cannot hold a journal: network file system, newer schema, no right."""

    code = "state_unusable"
    exit_code = 4


class TempRootUnusable(MachineError):
    """The directory cannot be a temp root: not ours, a home, the root of the file system, no right."""

    code = "temp_unusable"
    exit_code = 4

    def __init__(self, directory: str, why: str) -> None:
        super().__init__(
            f"the temp directory {directory} cannot be used: {why}; name a directory of ours alone with --temp, "
            "or leave the setting away: it is then below the state directory"
        )
