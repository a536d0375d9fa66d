"""Operations of other distributions, found by the entry-point group `gallery_supervisor.operations`.

    [project.entry-points."gallery_supervisor.operations"]
    sepia = "my_package.sepia:SEPIA"

The entry's name is the operation's name, its value leads to an `Operation`. What is installed is looked up once, in
the template; a module is imported when a recipe names its operation, and a worker pays for nothing else. Two operations
of one name would make a recipe mean either: the start is refused with the names of both distributions.
"""

import functools
from collections.abc import Collection, Iterable
from importlib.metadata import EntryPoint, entry_points

from workers.errors import RecipeError

GROUP = "gallery_supervisor.operations"
OURS = "gallery-supervisor itself"


def registry(ours: Collection[str], found: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    """Returns the operations of others by name. Raises RecipeError for a name that two have."""
    by_name: dict[str, EntryPoint] = {}
    for entry in found:
        known = by_name.get(entry.name)
        if entry.name in ours or (known is not None and known.value != entry.value):
            other = OURS if known is None else _owner(known)
            raise RecipeError(
                f"two operations are called {entry.name!r}: one of {other} and one of {_owner(entry)} "
                f"({entry.value}); uninstall one of them, or have it renamed"
            )
        by_name[entry.name] = entry
    return by_name


@functools.cache
def installed(ours: frozenset[str]) -> dict[str, EntryPoint]:
    """Returns the operations that other distributions of this environment bring. Raises RecipeError."""
    return registry(ours, entry_points(group=GROUP))


@functools.cache
def fetch(entry: EntryPoint) -> object:
    """Imports an operation. Raises RecipeError that names its distribution when it cannot be."""
    try:
        return entry.load()
    except Exception as error:  # whatever somebody's module does when it is imported
        raise RecipeError(
            f"operation {entry.name!r} of {_owner(entry)} cannot be imported from {entry.value}: "
            f"{type(error).__name__}: {error}"
        ) from error


def not_one(entry: EntryPoint, found: object) -> RecipeError:
    """Returns the refusal of an entry that leads to something else than an operation of its name."""
    return RecipeError(
        f"operation {entry.name!r} of {_owner(entry)}: {entry.value} is {found!r:.100}, "
        f"not a workers.operations.Operation named {entry.name!r}"
    )


def _owner(entry: EntryPoint) -> str:
    found = entry.dist
    return f"{found.name} {found.version}" if found is not None else "an unknown distribution"
