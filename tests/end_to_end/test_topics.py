"""The manual on the terminal is the README, and completion knows every verb and flag."""

import json

import pytest

from supervisor.cli import VERBS
from supervisor.cli.topics import TOPICS, read_readme, sections, topic, whole_parser
from tests.end_to_end.bed import Bed


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_a_section_of_the_readme(bed: Bed, name: str) -> None:
    told = bed.run("help", name, "--json").last
    assert told["topic"] == name and sections(read_readme())[told["heading"]] == told["text"]
    assert len(told["text"]) > 200 and "<!--" not in told["text"]


def test_every_section_is_a_topic() -> None:
    """A section that is added to the README can be read on the terminal too, and in the same order."""
    readme = read_readme()
    assert list(sections(readme)) == [topic(name, readme)[0] for name in TOPICS]


def test_help_lists_the_topics_and_refuses_others(bed: Bed) -> None:
    listed = bed.run("help")
    assert listed.code == 0 and [line.split()[0] for line in listed.out.splitlines()] == list(TOPICS)
    refused = bed.run("help", "everything")
    assert refused.code == 2 and "memory" in refused.err


def test_completion_knows_every_verb_and_its_flags(bed: Bed) -> None:
    pytest.importorskip("shtab")
    script = bed.run("completion", "bash")
    assert script.code == 0, script.err
    for verb in VERBS:
        assert verb in script.out
    assert "--item-timeout" in script.out and "--follow" in script.out
    assert json.loads(bed.run("help", "--json").out)["wire"] == "The wire"
    assert whole_parser().parse_args(["submit", "a", "--out", "b"]).verb == "submit"
