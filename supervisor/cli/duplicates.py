"""`duplicates`: groups of near-duplicate images, among all that the state directory knows, a batch, or a directory.

The supervisor, or its journal where none runs, hands out hashes a page at a time; they are grouped here, in the
command's own process, so that neither the supervisor's loop nor its journal ever waits for it.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from protocol.errors import UsageError
from protocol.messages import ImageHashes, ImageHashesPage
from protocol.paths import from_token
from supervisor.cli.find import Answerer, ask, connect_or_read
from supervisor.cli.options import Verb
from supervisor.cli.output import path_fields, print_json, say, shown, table
from supervisor.naming import absolute, relative
from supervisor.policy.alike import HASH_BITS, MAX_DISTANCE, group_hashes
from supervisor.policy.duplicates import Group, Picture, group_of, most_first
from supervisor.policy.sizes import human

DEFAULT_BITS = 6
"""Of 64. Copies made smaller or compressed again differ in 0 to 4; two of 100,000 unrelated photos hardly ever in 6."""
FLAT_BITS = 8
DEFAULT_COSINE = 0.05
MAX_COSINE = 0.5
_EXAMPLES = """  supervisor duplicates photos --distance 4
  supervisor duplicates BATCH --json | jq -r '.images[1:][].path'

Images that a recipe with the step phash (as 'web' has it) was run on are known, and for --by vector those
that one with the step embed was run on. Turned by its EXIF an image is still the same; turned in its pixels
it is another one."""

By = Literal["phash", "dhash", "vector"]


class Asked(NamedTuple):
    """What is compared, and how near is near: `bits` for hashes, `cosine` (1 - similarity) for vectors."""

    by: By
    batch: str | None
    directory: bytes | None
    bits: int
    cosine: float


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="?", metavar="BATCH | DIR", help="only images of it [all that are known]")
    parser.add_argument(
        "--distance", metavar="N", help=f"how far is near: bits, 0-{MAX_DISTANCE} [{DEFAULT_BITS}]; with --by vector "
        f"1 - cosine, 0-{MAX_COSINE} [{DEFAULT_COSINE}]",
    )  # fmt: skip
    parser.add_argument("--by", choices=("phash", "dhash", "vector"), default="phash", help="what is compared [phash]")
    parser.add_argument(
        "--vectors", choices=("float16", "int8"), default="float16",
        help="how vectors are kept; int8 takes half the room, cosines are off by less than 0.001 [float16]",
    )  # fmt: skip
    parser.add_argument(
        "--exact", action="store_true",
        help="with --by vector: miss none, though it takes longer; else, where vectors lie in a narrow cone, one in "
        "1,000 of the pairs right at the distance may be missed, of nearer ones hardly any",
    )  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    asked = _asked(arguments)
    look = Look()
    with connect_or_read(arguments) as answerer:
        if asked.by == "vector":
            from supervisor.cli.duplicates_vectors import groups_by_vectors  # numpy, an extra, is loaded for it alone

            groups, known = groups_by_vectors(answerer, asked, arguments, look.at)
        else:
            pictures = pictures_of(answerer, asked)
            known = len(pictures)
            sets = group_hashes([each.hash or 0 for each in pictures], asked.bits)
            there = [look.at([pictures[place] for place in places]) for places in sets]
            groups = [group_of(each) for each in there if len(each) > 1]
    if not known:
        operation = "embed" if asked.by == "vector" else "phash"
        say(f"no image {_where(asked)} has a {asked.by}: run a recipe with the step {operation} on them first")
    _tell(arguments, most_first(groups), known, look.gone)
    return 0


def _asked(arguments: argparse.Namespace) -> Asked:
    where: str | None = arguments.where
    directory = None
    if where is not None and ("/" in where or os.path.isdir(where)):
        directory = absolute(os.fsencode(where), os.getcwdb())
        if not os.path.isdir(directory):
            raise UsageError(f"{where} is not a directory; name a directory, or a batch as 'supervisor batches' lists")
    bits, cosine = DEFAULT_BITS, DEFAULT_COSINE
    if arguments.distance is not None:
        try:
            if arguments.by == "vector":
                cosine = float(arguments.distance)
            else:
                bits = int(arguments.distance)
        except ValueError:
            bits = -1
        if not (0 <= bits <= MAX_DISTANCE and 0 <= cosine <= MAX_COSINE):
            wanted = f"a number, 0 to {MAX_COSINE}" if arguments.by == "vector" else f"whole bits, 0 to {MAX_DISTANCE}"
            raise UsageError(f"--distance {arguments.distance}: with --by {arguments.by} it is {wanted}")
    return Asked(arguments.by, where if directory is None else None, directory, bits, cosine)


def _where(asked: Asked) -> str:
    if asked.directory is not None:
        return f"below {os.fsdecode(asked.directory)}"
    return f"of batch {asked.batch}" if asked.batch is not None else "known here"


def iter_pages(answerer: Answerer, by: By, batch: str | None = None, since: int = 0) -> Iterator[ImageHashesPage]:
    """Yields what images look like, page by page, older batches first."""
    after_batch = after = 0
    while True:
        request = ImageHashes(by=by, batch=batch, since=since, after_batch=after_batch, after=after)
        page = ask(answerer, request, ImageHashesPage)
        yield page
        if page.next is None:
            return
        after_batch, after = page.next


class Below:
    """Tells whether a path token is below the directory that is asked for, by its name or where that leads."""

    def __init__(self, directory: bytes | None) -> None:
        self._bases = () if directory is None else (directory, os.path.realpath(directory))

    def __call__(self, token: str) -> bool:
        """Returns True where no directory is asked for."""
        path = from_token(token)
        return not self._bases or any(relative(path, base) for base in self._bases)


def pictures_of(answerer: Answerer, asked: Asked) -> list[Picture]:
    """Returns the images that have a hash, each once: what was found last is what counts."""
    below = Below(asked.directory)
    found: dict[str, Picture] = {}
    for page in iter_pages(answerer, asked.by, asked.batch):
        for each in page.images:
            value = _number(each.value)
            if value is not None and below(each.path):
                found[each.path] = Picture(path=each.path, width=each.width, height=each.height, hash=value)
    return list(found.values())


def _number(text: str) -> int | None:
    try:
        return int(text, 16) if len(text) == 16 else None
    except ValueError:
        return None


class Look:
    """Looks at images as they are now."""

    def __init__(self) -> None:
        self.gone = 0
        """So many were not there any more."""

    def at(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Returns those that are there, with what their files take."""
        there: list[Picture] = []
        for picture in pictures:
            try:
                found = os.stat(from_token(picture.path))
            except (FileNotFoundError, NotADirectoryError):
                self.gone += 1
            except OSError:
                there.append(picture)  # it may be there, for others to read
            else:
                file = (found.st_dev, found.st_ino)
                there.append(msgspec.structs.replace(picture, size_bytes=found.st_size, file=file))
        return there


def _tell(arguments: argparse.Namespace, groups: Sequence[Group], known: int, gone: int) -> None:
    for number, group in enumerate(groups, start=1):
        if arguments.json:
            print_json(_row(number, group))
        else:
            print(_text(number, group))
    images = sum(len(group.pictures) for group in groups)
    freed = human(sum(group.freed_bytes for group in groups))
    if groups:
        counted = "1 group" if len(groups) == 1 else f"{len(groups):,} groups"
        say(f"{counted} of {images:,} images among {known:,}; all but the first of each take {freed}")
    else:
        say(f"no near-duplicates among {known:,} images")
    if gone:
        say(f"{gone:,} images are left out: they are not there any more")


def _row(number: int, group: Group) -> dict[str, object]:
    return {
        "group": number,
        "distance_max": group.distance_max,
        "images": [
            {
                **path_fields(each.path),
                "width": each.width or None,
                "height": each.height or None,
                "bytes": each.size_bytes,
                "hash": None if each.hash is None else f"{each.hash:016x}",
            }
            for each in group.pictures
        ],
    }


def _text(number: int, group: Group) -> str:
    farthest = f"{group.distance_max:.3g}"
    head = f"group {number}: {len(group.pictures)} images, at most {farthest} apart from the first, "
    rows = [
        (
            "  keep" if place == 0 else "",
            f"{each.width} x {each.height}" if each.width else "",
            "" if each.size_bytes is None else human(each.size_bytes),
            shown(each.path),
        )
        for place, each in enumerate(group.pictures)
    ]
    listing = table(("", "PIXELS", "SIZE", "IMAGE"), rows, right="PIXELS SIZE").split("\n", 1)[1]
    first = group.pictures[0].hash
    flat = "\n  flat pictures, which their hashes hardly tell apart: look at them" if _is_flat(first) else ""
    return f"{head}{human(group.freed_bytes)} in the others{flat}\n{listing}\n"


def _is_flat(value: int | None) -> bool:
    """A hash has about as many bits set as not, unless there was nothing to see."""
    return value is not None and min(value.bit_count(), HASH_BITS - value.bit_count()) < FLAT_BITS


VERBS = {"duplicates": Verb(_configure, _run, examples=_EXAMPLES)}
