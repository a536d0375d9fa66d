"""The same file without its metadata: no place, no camera, no date, and not one pixel changed (`images.stripping`)."""

from workers.errors import Verdict
from workers.images import stripping
from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

_LABEL = "stripped"
_BASE_BYTES = 1_000_000


class Strip(Parameters, frozen=True, kw_only=True):
    """`copyright`: keep artist and copyright."""

    copyright: bool = False


def _run(work: Work, parameters: Strip) -> None:
    source, header = work.source, work.source.header
    if header.container or header.format.name not in stripping.WAYS:
        name = header.container or header.format.name
        raise Verdict(
            "unsupported",
            f"{source.shown} is {name.upper()}; JPEG, PNG and WebP are stripped without re-encoding them, any other "
            'format by the operation convert with metadata = "strip"',
        )
    try:
        content = stripping.stripped(
            source.whole(), header.format, source.metadata().exif, copyright_too=parameters.copyright
        )
    except stripping.NotUnderstood as error:
        raise Verdict("corrupt", f"{source.shown} cannot be stripped as it stands: {error}") from error
    work.publish_as_is("strip", _LABEL, header, content)


def _beside(header: Header, parameters: Strip) -> int:
    return 3 * header.file_bytes + _BASE_BYTES


def _writes(parameters: Strip) -> list[str]:
    return [f"{_LABEL}.*"]


OPERATIONS = (
    Operation(
        name="strip", version=1, reads="header", run=_run, parameters=Strip, beside=_beside, writes=_writes,
    ),
)  # fmt: skip
