"""Documents through OCR in a container of 512 MB with two workers: who is killed, and how closely they are read.

The kernel's own counters say how many processes it killed and how much was used at most. Beside it the same without a
limit, for what memory costs: the time, and the size that the documents are read at.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest
from PIL import Image, ImageDraw, ImageFont

from supervisor.recipes import all_recipes
from tests.bench import pictures
from tests.bench.house import ROOT
from tests.bench.pressure import LIMIT_BYTES, peak
from tests.bench.rows import Row
from tests.bench.terms import Terms
from tests.end_to_end.groups import memory_group

DOCUMENTS = 60
WORKERS = 2


def run(terms: Terms) -> Iterator[Row]:
    """60 documents in 512 MB, then without a limit."""
    if "ocr" not in all_recipes({}):
        yield Row(name="OCR in 512 MB", ours=None, unit="documents", beside="not here: the extra ocr")
        return
    with tempfile.TemporaryDirectory(prefix="bench-ocr-") as place:
        root = _documents(terms, place, terms.count(DOCUMENTS, 12))
        for name, limit in (("512 MB", LIMIT_BYTES), ("no limit", 16 * 1024**3)):
            try:
                yield _read(f"OCR, 2 workers, {name}: documents not done + OOM kills", place, root, limit)
            except pytest.skip.Exception as missing:
                yield Row(name=f"OCR in {name}", ours=None, unit="documents", beside=f"not measured: {missing.msg}")


def _documents(terms: Terms, place: str, count: int) -> str:
    """Returns a directory of so many documents: those of the gallery again and again, or pages made by code."""
    root = os.path.join(place, "documents")
    os.mkdir(root)
    found = pictures.found(terms.gallery) if terms.gallery is not None else []
    for number in range(count):
        if terms.gallery is None:
            page(number).save(os.path.join(root, f"{number:03d}.png"))
        else:
            name = found[number % len(found)]
            shutil.copyfile(
                os.path.join(terms.gallery, name), os.path.join(root, f"{number:03d}-{os.path.basename(name)}")
            )
    return root


def page(number: int) -> Image.Image:
    """Returns a page of text, each another."""
    size = (1240, 1754) if number % 2 else (2480, 1754)
    made = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(size=20 + number % 20)
    for line, top in enumerate(range(80, size[1] - 80, 50)):
        draw.text(
            (80, top), f"page {number} line {line}: the quick brown fox jumps over {7 * line} dogs", "black", font
        )
    return made


def _read(name: str, place: str, root: str, limit_bytes: int) -> Row:
    state = os.path.join(place, "state")
    supervisor = [sys.executable, "-m", "supervisor"]
    with memory_group(limit_bytes) as group:
        command = [*group.prefix, *supervisor, "run", root, "--recipe", "ocr", "--workers", str(WORKERS)]
        began = time.perf_counter()
        ended = subprocess.run(
            [*command, "--state", state, "--cache", "no", "--json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - began
        kills, most = group.oom_kills(), peak(group)
    told = json.loads(ended.stdout.decode().strip().splitlines()[-1])
    listed = subprocess.run(
        [*supervisor, "results", told["batch"], "--jsonl", "--state", state], cwd=ROOT, stdout=subprocess.PIPE
    )
    results = [json.loads(line) for line in listed.stdout.decode().splitlines()]
    sides = collections.Counter(each["values"]["ocr"]["side"] for each in results if "ocr" in each["values"])
    lines = sum(len(each["values"]["ocr"]["lines"]) for each in results if "ocr" in each["values"])
    shutil.rmtree(state, ignore_errors=True)
    lost = told["items"] - told["done"] + kills
    return Row(
        name=name,
        ours=float(lost),
        unit="",
        target="0",
        met=lost == 0,
        beside=f"{told['done']} of {told['items']} done, {kills} OOM kills, {told['kills']} kills of ours, peak "
        f"{most / 1e6:,.0f} MB, {seconds:.0f} s, {lines} lines, longest side: {dict(sides.most_common(6))}",
    )
