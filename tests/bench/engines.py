"""Ways to make a thumbnail: ours, and others as their manuals show it. Each runs in a process of its own.

All write a JPEG of quality 80, upright, without metadata, at most `side` pixels wide and high. Ours is the whole item
as a worker performs it, from its name to its report. Programs (vipsthumbnail, ImageMagick) run once for all images of
a class, so that their start is not what is measured, or by GNU parallel as their manuals advise; one at a time: the
pools are compared elsewhere. Every one has a single thread.
"""

import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tests.mechanism.performing import Bench

QUALITY = 80
Maker = Callable[[Sequence[str], int, str], None]
"""Makes thumbnails of files, of a longest side in pixels, in a directory."""


class Run(msgspec.Struct, frozen=True):
    """What one run took: seconds, the peak of its process above what it was before (of a program's: the whole), bytes
    written; and the processor's seconds, of its programs too."""

    seconds: float
    peak_bytes: int
    out_bytes: int
    processor_seconds: float


_highest: list[int] = [0]
"""The peaks that were reset while a run went on."""


def measured(make: Maker, paths: Sequence[str], side: int) -> Run:
    """Returns what it takes, in a fresh process after one image of each kind to warm up. Raises RuntimeError."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="bench-images-") as out:
        child = context.Process(target=_child, args=(make, paths, side, out, there), daemon=True)
        child.start()
        there.close()
        try:
            answer = here.recv()
        except EOFError:
            raise RuntimeError(f"{make.__name__} died on {paths[0]}") from None
        finally:
            child.join()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return Run(*answer)


def _child(make: Maker, paths: Sequence[str], side: int, out: str, there: Connection) -> None:
    os.environ["VIPS_CONCURRENCY"] = os.environ["MAGICK_THREAD_LIMIT"] = "1"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        warm = os.path.join(out, "warm")
        os.mkdir(warm)
        make(paths[:1], side, warm)
        shutil.rmtree(warm)
        _highest[:] = [0]
        _reset_peak()
        before = _status("VmRSS")
        spent, began = _processor_seconds(), time.perf_counter()
        make(paths, side, out)
        seconds, spent = time.perf_counter() - began, _processor_seconds() - spent
        programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        peak = programs or max(0, max(_status("VmHWM"), *_highest) - before)
        there.send((seconds, peak, _bytes_below(out), spent))
    except Exception as error:
        there.send(f"{make.__name__}: {type(error).__name__}: {error}")


def _processor_seconds() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def as_worker(out: str) -> "Bench":
    """Returns where items are performed as in a worker: its allocator's settings, its meter of peaks."""
    from tests.mechanism.performing import Bench
    from workers.memory import PeakMeter, give_back_at_once

    class Meter(PeakMeter):
        def reset(self) -> None:
            _highest.append(self.read())  # the next item's peak is its own; that of the whole run is wanted too
            super().reset()

    give_back_at_once()
    bench = Bench(out)
    bench.context.peak = Meter()
    return bench


def ours(paths: Sequence[str], side: int, out: str) -> None:
    """A worker's own way."""
    from tests.mechanism.performing import recipe_of, step
    from workers.perform import perform

    bench = as_worker(out)
    recipe = recipe_of(step("thumbnail", sizes=[side], format="jpeg", quality=QUALITY))
    for path in paths:
        report = perform(recipe, bench.job(os.fsencode(path)), bench.context)
        if report.outcome != "done":
            raise RuntimeError(f"{path}: {report.error}")


def pillow(paths: Sequence[str], side: int, out: str) -> None:
    """Pillow's `thumbnail`."""
    from PIL import AvifImagePlugin, Image, ImageOps

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = None
    for path in paths:
        with Image.open(path) as image:
            image.thumbnail((side, side))
            shown = ImageOps.exif_transpose(image).convert("RGB")
            shown.info.clear()
            shown.save(_target(path, out), quality=QUALITY)


def pillow_heif(paths: Sequence[str], side: int, out: str) -> None:
    """Pillow's `thumbnail` with the HEIF plugin."""
    from workers.images import heif

    heif.register()
    pillow(paths, side, out)


def vips(paths: Sequence[str], side: int, out: str) -> None:
    """libvips's `thumbnail`."""
    import pyvips

    for path in paths:
        pyvips.Image.thumbnail(path, side).jpegsave(_target(path, out), Q=QUALITY, keep="none")


def vipsthumbnail(paths: Sequence[str], side: int, out: str) -> None:
    """The program, once for all."""
    options = ["--size", f"{side}x{side}>", "--output", os.path.join(out, f"%s.jpg[Q={QUALITY},strip]")]
    subprocess.run(["vipsthumbnail", *options, *paths], check=True, capture_output=True)


def parallel(paths: Sequence[str], side: int, out: str) -> None:
    """The program, once for each image."""
    options = ["--size", f"{side}x{side}>", "--output", os.path.join(out, f"%s.jpg[Q={QUALITY},strip]")]
    given = "".join(f"{path}\0" for path in paths).encode()
    subprocess.run(
        ["parallel", "--will-cite", "-q", "-0", "-j", "1", "vipsthumbnail", *options, "{}"],
        input=given,
        check=True,
        capture_output=True,
    )


def magick(paths: Sequence[str], side: int, out: str) -> None:
    """ImageMagick's `mogrify`, once for all."""
    options = [
        "-path",
        out,
        "-format",
        "jpg",
        "-auto-orient",
        "-thumbnail",
        f"{side}x{side}>",
        "-quality",
        str(QUALITY),
    ]
    program = ["magick", "mogrify"] if shutil.which("magick") else ["mogrify"]
    subprocess.run([*program, *options, *paths], check=True, capture_output=True)


PROGRAMS: dict[str, tuple[tuple[str, ...], Maker]] = {
    "vipsthumbnail": (("vipsthumbnail",), vipsthumbnail),
    "vipsthumbnail by parallel": (("vipsthumbnail", "parallel"), parallel),
    "ImageMagick": (("mogrify",), magick),
}
"""Peer: (the programs it needs, how it is called)."""


def missing(peer: str) -> str:
    """Returns the program that a peer lacks here, or nothing."""
    return next((program for program in PROGRAMS[peer][0] if shutil.which(program) is None), "")


def _target(path: str, out: str) -> str:
    return os.path.join(out, os.path.basename(path) + ".jpg")


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def _bytes_below(directory: str) -> int:
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(directory) for name in names)
