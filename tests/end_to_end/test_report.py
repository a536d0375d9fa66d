"""A report tells what running a batch was like, as text, as JSON, and as one page that needs nothing but itself."""

import os
import re
from html.parser import HTMLParser

from tests.end_to_end.bed import Bed, Command
from tests.galleries import small_jpeg, write

VOID = frozenset({"meta", "br"})


class Page(HTMLParser):
    """Reads a page: its words, its references, and whether what was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: dict[str, int] = {}
        self.references: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.words += data


STEPS: list[dict[str, object]] = [
    {"operation": "thumbnail", "sizes": [64, 128]},
    {"operation": "probe"},
    {"operation": "phash"},
    {"operation": "misbehave.hang", "seconds": 4.0, "only": "p00001*"},
]
"""Slow enough for a curve: history is told in rows of a second while there is work."""


def start(bed: Bed) -> Command:
    """Starts a supervisor that has the recipe."""
    bed.write_config(slow=STEPS)
    return bed.start()


def gallery(bed: Bed) -> str:
    """Runs images alike, others, a broken one and one with an odd name; returns the batch."""
    bed.fill(3, side=200)
    write(bed.photos, "again.jpg", small_jpeg(0, 160))
    write(bed.photos, "<b>odd&name<i>.jpg", small_jpeg(5, 200))
    write(bed.photos, "bad.jpg", b"\xff\xd8\xff\xe0 no image at all")
    client = bed.client()
    batch = bed.submit(client, sorted(os.listdir(bed.photos)), recipe="slow")
    client.wait(batch, 60)
    assert len(client.history().at) >= 2, "there is a curve"
    return batch


def test_a_report_in_words_in_json_and_as_a_page(bed: Bed) -> None:
    start(bed)
    batch = gallery(bed)
    told = bed.run("report", batch)
    assert told.code == 0
    assert "5 done, 1 failed" in told.out and "slowest" in told.out and "fattest" in told.out
    assert re.search(r"^failures +1 (corrupt|unsupported)$", told.out, re.MULTILINE)
    assert re.search(r"^alike +1 groups of 2 images among 5", told.out, re.MULTILINE)
    path = os.path.join(bed.directory, "report.html")
    both = bed.run("report", batch, "--html", path, "--json")
    row = both.last
    assert (row["batch"], row["items"], row["done"], row["failed"]) == (batch, 6, 5, 1)
    assert row["failures"]["count"] == 1 and row["failures"]["listed"][0]["path"] == bed.photo("bad.jpg")
    assert row["outputs"] == 5 * 2 and row["outputs_bytes"] > 0
    assert len(row["slowest"]) == 6 and row["slowest"][0]["seconds"] >= row["slowest"][-1]["seconds"]
    assert {os.path.basename(each["path"]) for each in row["near_duplicates"]["groups"][0]} == {
        "again.jpg",
        "p00000.jpg",
    }
    assert len(row["history"]["at"]) == len(row["history"]["used_bytes"])
    with open(path, encoding="utf-8") as file:
        text = file.read()
    page = Page(text)
    assert not page.open and page.references == [] and "script" not in page.tags, "it needs nothing but itself"
    assert "<b>odd&name<i>.jpg" in page.words and "b" not in page.tags, "a name is never markup"
    assert page.tags["svg"] == 1 and 'class="total"' in text and 'class="budget"' in text
    assert "bad.jpg" in page.words and "Near-duplicates" in page.words


def test_without_a_supervisor_it_is_read_from_the_journal(bed: Bed) -> None:
    command = start(bed)
    batch = gallery(bed)
    bed.run("stop")
    assert command.wait().code == 0
    path = os.path.join(bed.directory, "report.html")
    assert "5 done, 1 failed" in bed.run("report", batch).out
    assert bed.run("report", batch, "--html", path).code == 0
    with open(path, encoding="utf-8") as file:
        assert "bad.jpg" in Page(file.read()).words


def test_what_cannot_be_reported_is_said(bed: Bed) -> None:
    bed.start()
    unknown = bed.run("report", "nothing")
    assert unknown.code == 2 and "no batch 'nothing'" in unknown.err
    batch = bed.submit(bed.client(), bed.fill(1), recipe="probe")
    bed.client().wait(batch, 60)
    refused = bed.run("report", batch, "--html", os.path.join(bed.directory, "no", "such", "report.html"))
    assert refused.code == 2 and "cannot be written" in refused.err
