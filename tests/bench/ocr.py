"""Documents through OCR in a container of 512 MB with two workers: who is killed, and how closely they are read.

The kernel's own counters say how many processes it killed and how much was used at most. Beside it the same without a
limit, for what memory costs: the time, and the size that the documents are read at; and the library by its own
defaults, one process, on the same documents. Last the wrong characters, ours and the library's, where the text is
known: pages made by code, upright and turned, and files named by what they say.
"""

import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

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
_NAMED = re.compile(r"\d+|([A-Z][a-z]+){2,}")
"""Names of files that are what the picture says: 136.tif, HelloGoogle.tif."""


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
        try:
            yield _by_library(place, root)
        except pytest.skip.Exception as missing:
            yield Row(name="OCR by the library", ours=None, unit="lines", beside=f"not measured: {missing.msg}")
        yield _errors(terms, place, turned=False)
        yield _errors(terms, place, turned=True)


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


def page_text(number: int) -> list[str]:
    """Returns the lines of a page made by code."""
    high = 1754 - 160
    return [
        f"page {number} line {line}: the quick brown fox jumps over {7 * line} dogs" for line in range(high // 50 + 1)
    ]


def page(number: int) -> Image.Image:
    """Returns a page of text, each another."""
    size = (1240, 1754) if number % 2 else (2480, 1754)
    made = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(size=20 + number % 20)
    for line, top in zip(page_text(number), range(80, size[1] - 80, 50), strict=True):
        draw.text((80, top), line, "black", font)
    return made


def _by_library(place: str, root: str) -> Row:
    """The same documents by the library's defaults: lines, time, peak of a group of its own."""
    paths = [os.path.join(root, name) for name in sorted(os.listdir(root))]
    with memory_group(16 * 1024**3) as group:
        began = time.perf_counter()
        said = subprocess.run(
            [*group.prefix, sys.executable, "-m", "tests.bench.ocr_library", *paths], cwd=ROOT, stdout=subprocess.PIPE
        )
        seconds, most = time.perf_counter() - began, peak(group)
    read = [text for _, text in map(json.loads, said.stdout.splitlines())]
    return Row(
        name="OCR: lines by the library's defaults",
        ours=float(sum(len(text.splitlines()) for text in read)),
        unit="lines",
        beside=f"{len(read)} of {len(paths)} files, peak {most / 1e6:,.0f} MB, {seconds:.0f} s, one process",
    )


def _errors(terms: Terms, place: str, *, turned: bool) -> Row:
    """The wrong characters of every hundred, without a limit of memory; white space does not count. `turned`: of pages
    that lie on their sides or stand on their heads."""
    root = os.path.join(place, "turned" if turned else "known")
    os.mkdir(root)
    truths: dict[str, str] = {}
    for number in range(terms.count(6, 3 if turned else 2)):
        truths[f"page-{number}.png"] = "".join(page_text(number))
        degrees = 90 * (number % 3 + 1) if turned else 0
        page(number).rotate(degrees, expand=True).save(os.path.join(root, f"page-{number}.png"))
    for name in pictures.found(terms.gallery) if terms.gallery is not None and not turned else []:
        stem = os.path.splitext(os.path.basename(name))[0]
        if terms.gallery is not None and _NAMED.fullmatch(stem):
            truths[os.path.basename(name)] = stem
            shutil.copyfile(os.path.join(terms.gallery, name), os.path.join(root, os.path.basename(name)))
    ours = {os.path.basename(each["path"]): each["values"]["ocr"]["text"] for each in _results(place, root)}
    paths = [os.path.join(root, name) for name in truths]
    said = subprocess.run(
        [sys.executable, "-m", "tests.bench.ocr_library", *paths], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    theirs = {os.path.basename(path): read for path, read in map(json.loads, said.stdout.splitlines())}
    characters = sum(len("".join(truth.split())) for truth in truths.values())
    of_ours, of_theirs = (
        100 * sum(wrong(truth, read.get(name, "")) for name, truth in truths.items()) / characters
        for read in (ours, theirs)
    )
    return Row(
        name="OCR: wrong characters of a hundred" + (", turned pages" if turned else ", no limit"),
        ours=of_ours,
        unit="%",
        peer=of_theirs,
        peer_name="rapidocr by its defaults",
        target="≤ peer",
        met=of_ours <= of_theirs,
        beside=f"{len(truths)} files, {characters:,} characters",
    )


def _results(place: str, root: str) -> list[dict[str, Any]]:
    """What the recipe says of every file."""
    state = os.path.join(place, f"state-{os.path.basename(root)}")
    supervisor = [sys.executable, "-m", "supervisor"]
    command = [*supervisor, "run", root, "--recipe", "ocr", "--workers", str(WORKERS), "--memory", "4G"]
    ended = subprocess.run(
        [*command, "--state", state, "--cache", "no", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    batch = json.loads(ended.stdout.decode().strip().splitlines()[-1])["batch"]
    listed = subprocess.run(
        [*supervisor, "results", batch, "--jsonl", "--state", state], cwd=ROOT, stdout=subprocess.PIPE
    )
    return [each for each in map(json.loads, listed.stdout.splitlines()) if "ocr" in each["values"]]


def wrong(truth: str, read: str) -> int:
    """Returns the least number of characters to change, add or take out (Levenshtein), white space aside."""
    truth, read = "".join(truth.split()), "".join(read.split())
    above = list(range(len(read) + 1))
    for row, wanted in enumerate(truth, 1):
        line = [row]
        for column, found in enumerate(read, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (wanted != found)))
        above = line
    return above[-1]


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
