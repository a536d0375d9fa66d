"""What outputs are called: the *stem* of an item, its name below the output directory.

* below a named directory: relative to it; with several PATHs its last component stays in front;
* files named singly or in lists: relative to `--base`, else their absolute path;
* with `--base`, a directory inside it is named relative to it as well.

Two inputs with one stem would overwrite each other's outputs. Whether that can happen is often plain from
the command line alone (one directory: never), and then work starts while the walk goes on; else the batch
is held until every name is known.
"""

import os

import msgspec

from protocol.errors import UsageError


class Directory(msgspec.Struct, frozen=True):
    """A directory to walk: items are `root`/name, stems `prefix`/name."""

    root: bytes
    prefix: bytes = b""


class Files(msgspec.Struct, frozen=True):
    """Files named one by one, relative to `root`."""

    root: bytes
    names: tuple[bytes, ...]


class Listing(msgspec.Struct, frozen=True):
    """A list of files, read while it is submitted; `path` `-` is standard input."""

    path: str
    root: bytes
    nul: bool


Source = Directory | Files | Listing


def absolute(path: bytes, current: bytes) -> bytes:
    """Returns the absolute, normalised form of a path. A `..` is resolved by the file system, since the
    directory before it may be a link; nothing else is."""
    joined = os.path.join(current, path)
    if b".." in joined.split(b"/"):
        head, tail = os.path.split(joined.rstrip(b"/"))
        if tail in (b"..", b"."):
            head, tail = joined, b""
        joined = os.path.join(os.path.realpath(head), tail)
    return b"/" + os.path.normpath(joined).lstrip(b"/")


def relative(path: bytes, base: bytes) -> bytes | None:
    """Returns an absolute path relative to an absolute base, None where it is not inside; empty for the base."""
    if path == base:
        return b""
    inside = base if base.endswith(b"/") else base + b"/"
    return path[len(inside) :] if path.startswith(inside) else None


def directory_source(path: bytes, base: bytes | None, several: bool) -> Directory:
    """Returns the source of a named directory (absolute); `several`: other PATHs were named too."""
    if base is not None and (below := relative(path, base)) is not None:
        return Directory(path, below)
    if not several:
        return Directory(path)
    last = os.path.basename(path)
    return Directory(path, last)


def file_name(path: bytes, base: bytes | None, origin: str) -> bytes:
    """Returns the name of a single file (absolute) relative to the base, or to `/`. Raises UsageError."""
    name = relative(path, base or b"/")
    if not name:
        raise UsageError(
            f"{origin}: {os.fsdecode(path)} is not below --base {os.fsdecode(base or b'/')}; "
            "name a directory that holds all the files, or leave --base away"
        )
    return name


def may_clash(sources: list[Source]) -> bool:
    """Tells whether two different inputs of these sources could have one stem."""
    directories = [source for source in sources if isinstance(source, Directory)]
    for number, one in enumerate(directories):
        if any(_overlap(one.prefix, other.prefix) for other in directories[number + 1 :]):
            return True
    if directories and any(isinstance(source, Listing) for source in sources):
        return True  # which names a list holds is known only when it was read
    stems = [name for source in sources if isinstance(source, Files) for name in source.names]
    return any(_overlap(directory.prefix, stem) for directory in directories for stem in stems)


def _overlap(one: bytes, other: bytes) -> bool:
    return relative(one, other) is not None or relative(other, one) is not None or not one or not other
