"""Which names of files a request may carry. Checked once, at the door: everybody later takes tokens for sound."""

from protocol.errors import UsageError
from protocol.messages import AddItems
from protocol.paths import from_token, is_plain


def check_names(request: AddItems) -> None:
    """Raises UsageError that names the first fault of a chunk's names, root or prefix."""
    if request.prefix.endswith("/") or (request.prefix.startswith("/") and is_plain(request.prefix)):
        raise UsageError(f"prefix must be a relative path without a slash at its end, not {request.prefix!r}")
    if "\0" in "\n".join(request.names):  # one search, however many names
        raise UsageError("a file name cannot hold a NUL byte")
    if not all(request.names):
        raise UsageError("a file name cannot be empty")
    for token in (request.root, request.prefix, *(name for name in request.names if not is_plain(name))):
        check_token(token)


def check_token(token: str) -> None:
    """Raises UsageError for what is the name of no file."""
    try:
        raw = from_token(token)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if b"\0" in raw:
        raise UsageError(f"a file name cannot hold a NUL byte: {token!r}")
