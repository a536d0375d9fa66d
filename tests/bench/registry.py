"""The benchmarks by name. One file each; a new one is a file and a line here."""

from collections.abc import Callable, Iterator

import msgspec

from tests.bench import (
    breach,
    cache,
    cache_runs,
    cleanup,
    coverage,
    duplicates,
    everything,
    footprint,
    grow,
    images,
    kills,
    leaks,
    ocr,
    overshoot,
    prediction,
    pressure,
    rest,
    temp,
    throughput,
    thumbnails,
)
from tests.bench.rows import Row
from tests.bench.terms import Terms

Benchmark = Callable[[Terms], Iterator[Row]]


class Entry(msgspec.Struct, frozen=True):
    """A benchmark: `issue` is the one whose table it belongs to."""

    issue: int
    run: Benchmark
    about: str


BENCHMARKS: dict[str, Entry] = {
    "noop": Entry(2, throughput.whole, "durable no-op items a second, and the loop's turns meanwhile"),
    "noop-one": Entry(2, throughput.single, "the same with a batch size of 1"),
    "thumbnails": Entry(2, thumbnails.run, "thumbnails of a gallery, against a bare pool"),
    "kill": Entry(2, kills.run, "kill -9 of a busy worker to its images running again"),
    "overshoot": Entry(2, overshoot.run, "memory past the hard limit at 1 GB/s"),
    "breach": Entry(3, breach.run, "a worker's limit passed to the decision about it"),
    "prediction": Entry(3, prediction.run, "the peak of an image, predicted and measured"),
    "memory": Entry(2, footprint.run, "memory of the supervisor and 4 idle workers"),
    "temp": Entry(4, temp.run, "temp files left behind by the killed, and the loop while 100,000 are deleted"),
    "cache": Entry(4, cache.single, "single look-ups of the cache, against diskcache"),
    "cache-rerun": Entry(4, cache.second_run, "a gallery looked up again: outputs in place, outputs gone"),
    "cache-whole": Entry(4, cache_runs.second, "the same through a whole supervisor, submission to last commit"),
    "cache-cost": Entry(4, cache_runs.first, "what keeping results costs a first run"),
    "cache-hits": Entry(4, cache.hit_rates, "what the cache finds again on known loads, against LRU"),
    "cache-index": Entry(4, cache.index, "an index of a million entries: its file and its memory"),
    "images": Entry(5, images.run, "thumbnails by class of image, against Pillow and libvips called bare"),
    "coverage": Entry(5, coverage.run, "files of a folder that are read, against the bare engines"),
    "duplicates": Entry(4, duplicates.run, "near-duplicates among 100,000 images"),
    "pressure": Entry(3, pressure.run, "a mixed gallery in 512 MB, against the peers; and 1,000 photos in 300 MB"),
    "ocr": Entry(3, ocr.run, "documents through OCR in 512 MB with two workers"),
    "leaks": Entry(3, leaks.run, "items until a small leak is found and blamed, and false alarms over clean images"),
    "everything": Entry(3, everything.run, "throughput with everything on against everything off"),
    "cleanup": Entry(3, cleanup.run, "what a batch leaves behind, until it is gone; and the loop meanwhile"),
    "grow": Entry(3, grow.run, "from a submission to a shrunk pool to its second and its last worker at work"),
    "rest": Entry(2, rest.run, "processor time of a supervisor at rest"),
    "busy": Entry(3, rest.busy, "processor time of watching 16 busy workers"),
}
