"""The README is true: its commands parse, its blocks are the files and tables they show, its client works.

`python -m tests.end_to_end.test_readme` writes the blocks that are made from elsewhere anew.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from supervisor.cli import VERBS, main
from supervisor.config import read
from supervisor.settings import SETTINGS
from tests.end_to_end.bed import Bed

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def client_block() -> str:
    """Returns the ten-line client as the README shows it."""
    return f"```python\n{(ROOT / 'tests/end_to_end/ten_line_client.py').read_text('utf-8')}```"


def settings_block() -> str:
    """Returns the table of the settings that have no table of their own."""
    lines = ["| flag | key | what it is [default] |", "|---|---|---|"]
    for setting in SETTINGS:
        if not setting.section and not setting.hidden:
            text = setting.help.replace("|", "\\|")
            lines.append(f"| `{setting.flag}` | `{setting.key}` | {text} |")
    lines += ["", "The variable of `--item-timeout` is `SUPERVISOR_ITEM_TIMEOUT`, and so on."]
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[], str]] = {"client": client_block, "settings": settings_block}
"""Block: what makes it."""


def text() -> str:
    """Returns the README."""
    return README.read_text("utf-8")


def block(name: str) -> str:
    """Returns what stands between the marks of a block."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text(), re.DOTALL)
    assert found is not None, f"README.md has no block {name}"
    return found[1]


def fenced(language: str) -> list[str]:
    """Returns the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text(), re.DOTALL)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_what_it_is_made_from(name: str) -> None:
    assert block(name) == BLOCKS[name](), "cure: python -m tests.end_to_end.test_readme"


def commands() -> list[str]:
    """Returns the command lines that begin with `supervisor`, in blocks and in running text."""
    indented = re.findall(r"^    supervisor ([a-z].*?)(?:\s+#.*)?$", text(), re.MULTILINE)
    prose = re.findall(r"`(?:\.venv/bin/)?supervisor ([a-z][^`]*)`", text())
    chained = re.findall(r"&& \.venv/bin/supervisor (.*)$", text(), re.MULTILINE)
    return [*indented, *prose, *chained]


def test_every_command_is_one() -> None:
    found = commands()
    assert len(found) > 10
    for line in found:
        words = shlex.split(line)
        verb = import_module(f"supervisor.cli.{VERBS[words[0]][0]}").VERBS[words[0]]
        parser = verb.parser(words[0], VERBS[words[0]][1])
        if len(words) > 1:
            parser.parse_args(words[1:])


def test_the_settings_file_is_one(tmp_path: Path) -> None:
    (example,) = fenced("toml")
    assert tomllib.loads(example)
    path = tmp_path / "supervisor.toml"
    path.write_text(example, "utf-8")
    reading = read({"config": str(path)}, environ={})
    assert reading.faults == [] and set(reading.user_recipes) == {"small"}
    assert reading.config(usable_cores=1).limits.pixels_whole == 100_000_000


def test_the_map_is_of_this_house() -> None:
    rows = re.findall(r"^\| `([a-z_/.]+)` \| ", text().partition("## The map")[2], re.MULTILINE)
    assert len(rows) >= 6
    for name in rows:
        assert (ROOT / name).exists(), f"the map names {name}, which is not there"


def test_exit_codes_are_those_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = set(re.findall(r"\b\d+\b(?= [a-z])", capsys.readouterr().out.partition("Exit codes:")[2]))
    line = re.search(r"^Exit codes:.*?\n\n", text(), re.MULTILINE | re.DOTALL)
    assert line is not None
    assert told and told == set(re.findall(r"(?:^|· |codes: )(\d+) ", line[0].replace("\n", " ")))


def test_the_python_client_works(bed: Bed) -> None:
    names = bed.fill(2)
    bed.start()
    (example,) = [code for code in fenced("python") if "protocol.client" in code]
    for old, new in (
        ('os.path.expanduser("~/.local/state/gallery-supervisor")', repr(bed.state)),
        ('"/srv/thumbs"', repr(bed.out)), ('"/srv/photos"', repr(bed.photos)),
        ('["a.jpg", "beach/b.jpg"]', repr(names)),
    ):  # fmt: skip
        assert old in example
        example = example.replace(old, new)
    ended = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "2 of 2" in lines
    assert {f"done {bed.photo(name)} None" for name in names} <= set(lines)


def write_blocks() -> None:
    """Writes the generated blocks of the README anew."""
    changed = text()
    for name, make in BLOCKS.items():
        marks = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, _, rest = changed.partition(marks[0])
        _, _, after = ("\n" + rest).partition(marks[1])
        changed = before + marks[0] + make() + marks[1] + after
    temporary = README.with_name(".README.md.new")
    temporary.write_text(changed, "utf-8")
    os.replace(temporary, README)


if __name__ == "__main__":
    write_blocks()
