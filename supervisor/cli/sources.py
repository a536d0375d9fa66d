"""The PATHs of a command line: what each one is, checked before anything is submitted, and its names."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO

from protocol.errors import UsageError
from protocol.paths import to_token
from supervisor.naming import Directory, Files, Listing, Source, absolute, directory_source, file_name

READ_BYTES = 1 << 16
MAX_NAME_BYTES = 4096
"""PATH_MAX: a longer line is no file name, the input is no list."""


def read_sources(paths: list[str], base: str | None, nul: bool) -> list[Source]:
    """Returns what the PATHs name. Raises UsageError that names the first one that is missing or unreadable."""
    current = os.getcwdb()
    root = None if base is None else absolute(os.fsencode(base), current)
    if root is not None and not os.path.isdir(root):
        raise UsageError(f"--base {base} is no directory")
    sources: list[Source] = []
    files: list[bytes] = []
    named = list(dict.fromkeys(paths))
    for path in named:
        if path == "-" or path.startswith("@"):
            sources.append(_listing(path, root, nul))
            continue
        full = absolute(os.fsencode(path), current)
        if _is_directory(path, full):
            sources.append(directory_source(full, root, several=len(named) > 1))
        else:
            files.append(file_name(full, root, "PATH"))
    if files:
        sources.append(Files(root or b"/", tuple(dict.fromkeys(files))))
    return list(dict.fromkeys(sources))


def check_output(sources: list[Source], out: bytes | None) -> None:
    """Raises UsageError where the output directory is itself an input, or not a directory."""
    if out is None:
        return
    if os.path.lexists(out) and not os.path.isdir(out):
        raise UsageError(f"--out {os.fsdecode(out)} is no directory")
    for source in sources:
        if isinstance(source, Directory) and os.path.realpath(source.root) == os.path.realpath(out):
            raise UsageError(
                f"--out {os.fsdecode(out)} is the input directory itself: its outputs would be the next run's inputs; "
                "name another one (a directory inside the input is skipped as input)"
            )


def listed_names(source: Listing) -> Iterator[str]:
    """Yields the path tokens of a list, relative to its root. Raises UsageError that names list and line."""
    current = os.getcwdb()
    base = None if source.root == b"/" else source.root
    separator = b"\0" if source.nul else b"\n"
    where = "standard input" if source.path == "-" else source.path
    with _open(source.path) as file:
        for number, line in enumerate(_lines(file, separator, where), start=1):
            name = line if source.nul else line.removesuffix(b"\r")
            if not name:
                continue
            if b"\0" in name:
                raise UsageError(f"{where}, line {number}: a NUL byte; say -0 when names are separated by NUL")
            yield to_token(file_name(absolute(name, current), base, f"{where}, line {number}"))


def _listing(path: str, root: bytes | None, nul: bool) -> Listing:
    if path == "-":
        return Listing("-", root or b"/", nul)
    name = path[1:]
    try:
        with open(os.fsencode(name), "rb"):
            pass
    except OSError as error:
        raise UsageError(
            f"{path}: the list cannot be read: {error.strerror} (a file whose name begins with @ is named ./{path})"
        ) from error
    return Listing(name, root or b"/", nul)


def _is_directory(path: str, full: bytes) -> bool:
    try:
        found = os.stat(full)
        if stat.S_ISDIR(found.st_mode):
            os.scandir(full).close()
            return True
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return False


def _open(path: str) -> BinaryIO:
    if path == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", closefd=True)
    return open(os.fsencode(path), "rb")


def _lines(file: BinaryIO, separator: bytes, where: str) -> Iterator[bytes]:
    rest = b""
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while block := read(READ_BYTES):
        *lines, rest = (rest + block).split(separator)
        yield from lines
        if len(rest) > MAX_NAME_BYTES:
            raise UsageError(f"{where}: a line of more than {MAX_NAME_BYTES:,} bytes is no file name")
    if rest:
        yield rest
