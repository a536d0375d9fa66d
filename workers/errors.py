"""How an item can end other than well, by whose fault it is; each class makes its own sentence from facts.

Raised inside a worker only and turned into an `ItemReport` by `workers.perform`: a bad image is a verdict,
never an exception that leaves the worker; a full disk is the machine's fault, never the image's.
"""

from typing import ClassVar

from protocol.errors import GalleryError, UsageError
from protocol.messages import ErrorKind


class RecipeError(UsageError):
    """A recipe names an unknown operation, or a parameter that the operation refuses."""

    code = "recipe"


class Verdict(GalleryError):
    """The image is at fault: it is failed at once and never retried by itself."""

    fault = "image"
    code = "verdict"

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind


class Deferred(GalleryError):
    """The item would need more memory than it was granted. Nothing was written."""

    fault = "machine"
    code = "deferred"

    def __init__(self, needs_bytes: int) -> None:
        super().__init__(f"needs {needs_bytes:,} bytes above the worker's baseline")
        self.needs_bytes = needs_bytes


class MachineTrouble(GalleryError):
    """The machine cannot do it now: disk full, output not writable, no descriptors. The item is retried."""

    fault: ClassVar = "machine"
    code = "machine"


class NoMemoryNow(MachineTrouble):
    """There is no memory for what every image of the recipe needs, such as its model. The item is retried, not for
    ever."""

    code = "no_memory_now"


class NoMemory(GalleryError):
    """A memory lease was refused; `needs_bytes` is the least that was asked for, `for_ever`: waiting cannot help."""

    fault = "machine"
    code = "no_memory"

    def __init__(self, reason: str, needs_bytes: int, *, for_ever: bool = False) -> None:
        super().__init__(reason)
        self.needs_bytes, self.for_ever = needs_bytes, for_ever


class CannotDecode(GalleryError):
    """One decoder refuses the image; another may not. `cut` says that the file ends too early."""

    fault = "image"
    code = "cannot_decode"
