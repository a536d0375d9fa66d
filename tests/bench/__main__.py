"""`python -m tests.bench [NAME ...] [DIR] [--json | --markdown] [--quick]`: exit code 1 when a target is missed."""

import argparse
import os
import signal
import sys
from types import FrameType

from tests.bench.machine import machine
from tests.bench.registry import BENCHMARKS
from tests.bench.report import json_line, markdown, table
from tests.bench.rows import Row
from tests.bench.terms import Terms

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Runs what is named, everything where nothing is; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    names = [name for name in given.names if name in BENCHMARKS]
    for folder in (name for name in given.names if name not in BENCHMARKS):
        if not os.path.isdir(folder):
            parser.error(f"{folder!r} is neither a benchmark ({', '.join(BENCHMARKS)}) nor a directory")
        given.gallery = folder
    signal.signal(signal.SIGTERM, _interrupt)  # what was started is ended on the way out, as on Ctrl-C
    terms = Terms(runs=3 if given.quick else 5, quick=given.quick, gallery=given.gallery, scale=given.scale)
    here = machine()
    rows: list[Row] = []
    try:
        for name in names or BENCHMARKS:
            print(f"{name}: {BENCHMARKS[name].about} ...", file=sys.stderr, flush=True)
            for row in BENCHMARKS[name].run(terms):
                rows.append(row)
                if given.json:
                    print(json_line(row, here), flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if not given.json and rows:
            print(here, *table(rows), *(["", *markdown(rows)] if given.markdown else []), sep="\n")
    return 1 if any(row.met is False for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:12}issue {entry.issue}: {entry.about}" for name, entry in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures what is promised in figures.",
        epilog=f"benchmarks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME|DIR", help="which ones [all]; a directory is as --gallery")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    parser.add_argument("--markdown", action="store_true", help="a Markdown table by class and peer after the other")
    parser.add_argument("--gallery", metavar="DIR", help="photos for the thumbnails [made by code]")
    parser.add_argument("--quick", action="store_true", help="3 runs instead of 5, and smaller ones")
    parser.add_argument("--scale", type=float, default=1.0, help=argparse.SUPPRESS)
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
