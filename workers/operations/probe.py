"""What an image says about itself, without decoding a pixel: header, camera, lens, place; with `full`, everything."""

from typing import Any

import msgspec

from workers.images import exif, metadata
from workers.operations import Operation, Parameters, Work


class Probe(Parameters, frozen=True, kw_only=True):
    """`full`: all of EXIF, XMP and IPTC as well; some kilobytes an image in the results."""

    full: bool = False


def _run(work: Work, parameters: Probe) -> dict[str, Any]:
    header = work.source.header
    found = work.source.metadata()
    tags = exif.directories(found.exif)
    camera, lens = exif.camera(tags)
    place = exif.place(tags["gps"])
    values = {
        "format": header.container or header.format.name,
        "width": header.width,
        "height": header.height,
        "pixels": header.pixels,
        "orientation": header.orientation,
        "taken": header.taken,
        "camera": camera,
        "lens": lens,
        "gps": msgspec.structs.asdict(place) if place is not None else None,
        "mode": header.mode,
        "bands": header.bands,
        "bits": header.bits,
        "frames": header.frames,
        "progressive": header.progressive,
        "icc": bool(header.icc),
        "icc_description": metadata.icc_description(found.icc) if found.icc else None,
        "bytes": header.file_bytes,
        "reader": "libvips" if header.reader == "vips" else "Pillow",
    }
    if parameters.full:
        values["exif"] = metadata.exif_json(found.exif)
        values["xmp"] = metadata.xmp_json(found.xmp)
        values["iptc"] = metadata.iptc_json(found.iptc)
    return values


OPERATIONS = (Operation(name="probe", version=2, reads="header", run=_run, parameters=Probe),)
