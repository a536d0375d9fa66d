"""What the header says, without decoding a pixel."""

from typing import Any

from workers.operations import Operation, Parameters, Work


def _run(work: Work, parameters: Parameters) -> dict[str, Any]:
    header = work.source.header
    return {
        "format": header.format.name,
        "width": header.width,
        "height": header.height,
        "pixels": header.pixels,
        "orientation": header.orientation,
        "taken": header.taken,
        "mode": header.mode,
        "bands": header.bands,
        "bits": header.bits,
        "frames": header.frames,
        "progressive": header.progressive,
        "icc": bool(header.icc),
        "bytes": header.file_bytes,
    }


OPERATIONS = (Operation(name="probe", version=1, reads="header", run=_run),)
