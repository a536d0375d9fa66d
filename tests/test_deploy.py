"""What deploy/ runs: units that systemd accepts, a Dockerfile that is what it says, command lines that are real."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from supervisor.cli import VERBS
from supervisor.config import read
from supervisor.values import parse_duration

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = {"gallery-supervisor.service": "--system", "gallery-supervisor.user.service": "--user"}
STOP_SECONDS = 15
"""Beyond the drain: workers are terminated and killed (5 s each), the journal is closed."""


def check_command(words: list[str]) -> None:
    """Parses a command line as the program does; its settings too. Fails where it would end with exit code 2."""
    verb = import_module(f"supervisor.cli.{VERBS[words[0]][0]}").VERBS[words[0]]
    arguments = verb.parser(words[0], VERBS[words[0]][1]).parse_args(words[1:])
    flags = {
        key.removeprefix("setting_"): value
        for key, value in vars(arguments).items()
        if key.startswith("setting_") and value is not None
    }
    reading = read(flags, environ={})
    assert reading.faults == []


class Unit(configparser.RawConfigParser):
    """A unit file whose keys occur once, or are in MANY."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, comment_prefixes=("#",), delimiters=("=",))
        self.optionxform = str  # type: ignore[method-assign, assignment]
        self.read_string((DEPLOY / name).read_text("utf-8"))


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_a_real_command_and_gives_the_drain_its_time(name: str) -> None:
    service = Unit(name)["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert os.path.basename(program) == "supervisor" and words[0] == "start"
    check_command(words)
    drain = parse_duration(words[words.index("--drain") + 1])
    assert drain is not None and drain + STOP_SECONDS <= float(service["TimeoutStopSec"].removesuffix("s"))
    assert (service["Type"], service["KillMode"], service["OOMPolicy"]) == ("notify", "mixed", "continue")
    assert service["Delegate"] == "memory", "workers get control groups of their own"
    assert service.get("ProtectControlGroups", "no") == "no", "it would make them read-only"


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    # The program need not be installed here; everything else is checked as it is.
    text, number = re.subn(r"(?m)^ExecStart=\S+", "ExecStart=/bin/sh", (DEPLOY / name).read_text("utf-8"))
    assert number == 1
    (tmp_path / "gallery-supervisor.service").write_text(text, "utf-8")
    command = ["systemd-analyze", UNITS[name], "--man=no", "verify", str(tmp_path / "gallery-supervisor.service")]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    said = [line for line in ended.stderr.splitlines() if "gallery-supervisor.service" in line]
    assert (ended.returncode, said) == (0, []), ended.stderr


@pytest.mark.parametrize("name", [*UNITS, "Dockerfile"])
def test_the_commands_in_the_comments_are_real(name: str) -> None:
    lines = "\n".join(
        line.removeprefix("#").strip() if line.startswith("#") else ""
        for line in (DEPLOY / name).read_text("utf-8").splitlines()
    ).replace("\\\n", " ")
    starts = r"(?:\bsupervisor|/bin/supervisor|-t gallery-supervisor|--user \S+ \S+ gallery-supervisor)"
    verbs = "|".join(VERBS)
    found = [
        words
        for line in lines.splitlines()
        for words in re.findall(rf"^(?:sudo|docker (?:run|exec)|supervisor)\b.*?{starts} ((?:{verbs})\b.*)$", line)
    ]
    for words in found:
        check_command(shlex.split(words))
    assert found or "user" in name


def instructions() -> list[tuple[str, str]]:
    """Returns (instruction, rest) of the Dockerfile, line by line, continuations joined."""
    text = "\n".join(line for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines() if line[:1] != "#")
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            assert word.isupper(), f"no instruction: {line}"
            found.append((word, " ".join(rest.split())))
    return found


def listed(text: str) -> list[str]:
    """Returns the words of an instruction in exec form."""
    return [str(word) for word in json.loads(text)]


def test_the_dockerfile_builds_from_what_there_is_and_runs_as_nobody_special() -> None:
    found = instructions()
    words = [word for word, _ in found]
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "STOPSIGNAL", "HEALTHCHECK",
             "ENTRYPOINT", "CMD", "EXPOSE"}  # fmt: skip
    assert set(words) <= known and words.count("FROM") == 2
    for word, rest in found:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (DEPLOY.parent / source).exists(), f"COPY {source}: there is no such thing"
    last = dict(found)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"]), (
        "a number that is not root, so that Kubernetes can check it"
    )
    assert words.index("USER") > words.index("COPY") and last["STOPSIGNAL"] == "SIGTERM"
    state = re.search(r"SUPERVISOR_STATE=(\S+)", last["ENV"])
    assert state is not None and state[1].startswith(last["VOLUME"] + "/")


def test_the_dockerfile_starts_below_a_reaper_and_its_commands_are_real() -> None:
    last = dict(instructions())
    entry, command = listed(last["ENTRYPOINT"]), listed(last["CMD"])
    assert entry == ["tini", "--", "supervisor"]
    assert any("install" in rest and "tini" in rest for word, rest in instructions() if word == "RUN")
    check_command(command)
    program, *health = listed(last["HEALTHCHECK"].partition("CMD ")[2])
    assert program == "supervisor" and health[0] == "health"
    check_command(health)


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    seen = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert seen == copied


def test_a_wrong_command_would_be_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check_command(["start", "--no-such-flag"])
    assert "--no-such-flag" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        check_command(["start", "--drain", "long"])
