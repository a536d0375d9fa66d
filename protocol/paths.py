"""File names as JSON strings, without loss.

A file name is bytes; JSON carries Unicode. A *token* is the string form used on the wire and in the
journal: the name itself where it is UTF-8, else `//base64:` and its bytes. No token of one kind can be
mistaken for the other: a relative name never begins with a slash, and a normalised absolute path never
begins with two.
"""

import base64
import binascii
import os

_MARK = "//base64:"


def to_token(path: str | bytes) -> str:
    """Returns the token of a path given as the operating system gave it (str may hold surrogates)."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _MARK + base64.b64encode(raw).decode("ascii")


def from_token(token: str) -> bytes:
    """Returns the bytes of a token. Raises ValueError when its base64 part is not base64."""
    if not token.startswith(_MARK):
        return token.encode("utf-8")
    try:
        return base64.b64decode(token[len(_MARK) :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"not a path token: {token[:80]!r}: {error}") from error


def is_plain(token: str) -> bool:
    """Tells whether the token is the name itself (it is UTF-8)."""
    return not token.startswith(_MARK)


def describe(token: str) -> dict[str, str]:
    """Returns the JSON fields that name a path: `path` (lossy where it must be) and then `path_b64`."""
    if is_plain(token):
        return {"path": token}
    return {"path": from_token(token).decode("utf-8", "replace"), "path_b64": token[len(_MARK) :]}


def join(directory: str, name: str) -> str:
    """Returns the token of `directory`/`name`, both tokens; an empty directory leaves the name alone."""
    if not directory:
        return name
    if is_plain(directory) and is_plain(name):
        return f"{directory}{name}" if directory.endswith("/") else f"{directory}/{name}"
    raw = from_token(directory)
    return to_token(raw + (b"" if raw.endswith(b"/") else b"/") + from_token(name))


def item_path(root: str, prefix: str, stem: str) -> str:
    """Returns the token of an input's absolute path.

    An item is kept as its *stem* (what its outputs are named after, below OUT); `root` is the directory
    that was submitted and `prefix` what the stem has in front of the name relative to that root.
    """
    if not prefix:
        return join(root, stem)
    if is_plain(stem):
        return join(root, stem[len(prefix) + 1 :])
    return join(root, to_token(from_token(stem)[len(from_token(prefix)) + 1 :]))
