"""`help TOPIC` and `completion SHELL`: what there is to know, without leaving the terminal.

The topics are the sections of the README, which the installation carries as the package's description: one text, told
in two places.
"""

import argparse
import importlib.metadata
import os
import re
import sys
from importlib import import_module

from protocol.errors import UsageError
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json

DISTRIBUTION = "gallery-supervisor"
SHELLS = ("bash", "zsh", "tcsh")
TOPICS = {
    "start": "Two commands",
    "use": "Use",
    "promises": "What is promised",
    "http": "HTTP and dashboard",
    "memory": "Under pressure",
    "cache": "Cache",
    "temp": "Temp files",
    "duplicates": "Near-duplicates",
    "recipes": "Recipes and settings",
    "operations": "Your own operations",
    "wire": "The wire",
    "deployment": "Deployment",
    "limits": "What it does not do",
    "map": "The map",
}
"""Topic: how the heading of its section begins; in the README's order, each section once."""
_EXAMPLES = """  supervisor help
  supervisor help memory"""
_COMPLETION = """  supervisor completion bash > ~/.local/share/bash-completion/completions/supervisor
  supervisor completion zsh > ~/.zfunc/_supervisor"""


def sections(readme: str) -> dict[str, str]:
    """Returns the texts of a README's sections by heading, without what is meant for those who build it."""
    without = re.sub(r"<!--.*?-->\n?", "", readme, flags=re.DOTALL)
    parts = re.split(r"^## (.+)$", without, flags=re.MULTILINE)
    return {parts[i].strip(): parts[i + 1].strip("\n") for i in range(1, len(parts), 2)}


def topic(name: str, readme: str) -> tuple[str, str]:
    """Returns the heading and the text of a topic. Raises UsageError for one there is not."""
    begins = TOPICS.get(name)
    for heading, text in sections(readme).items():
        if begins is not None and heading.startswith(begins):
            return heading, text
    raise UsageError(f"there is no topic {name!r}; the topics are {', '.join(TOPICS)}")


def read_readme() -> str:
    """Returns the README as it was installed, else the one beside the packages. Raises UsageError where neither is."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "README.md")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return file.read()
    try:
        text = importlib.metadata.metadata(DISTRIBUTION).get_payload()  # type: ignore[attr-defined]
    except importlib.metadata.PackageNotFoundError:
        text = None
    if not isinstance(text, str) or "## " not in text:
        raise UsageError(f"the texts are not installed; reinstall {DISTRIBUTION}, or read its README.md")
    return text


def _configure_help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", nargs="?", choices=tuple(TOPICS), metavar="TOPIC", help=", ".join(TOPICS))


def _help(arguments: argparse.Namespace) -> int:
    readme = read_readme()
    if arguments.topic is None:
        width = max(map(len, TOPICS))
        known = {name: topic(name, readme)[0] for name in TOPICS}
        if arguments.json:
            print_json(known)
        else:
            print("\n".join(f"  {name:<{width}}  {heading}" for name, heading in known.items()))
        return 0
    heading, text = topic(arguments.topic, readme)
    if arguments.json:
        print_json({"topic": arguments.topic, "heading": heading, "text": text})
    else:
        print(f"{heading}\n{'=' * len(heading)}\n\n{text}")
    return 0


def _configure_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose language the script is in")


def _completion(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise UsageError(f"completion needs shtab: pip install '{DISTRIBUTION}[completion]'") from None
    sys.stdout.write(shtab.complete(whole_parser(), arguments.shell) + "\n")
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Returns one parser of all verbs with their flags."""
    from supervisor.cli import VERBS as ALL

    root = argparse.ArgumentParser(prog="supervisor", description="Image work over large galleries in small memory.")
    verbs = root.add_subparsers(dest="verb")
    for name, (module, text) in ALL.items():
        verb: Verb = import_module(f"supervisor.cli.{module}").VERBS[name]
        verbs.add_parser(name, help=text, parents=[verb.parser(name, text)], add_help=False, conflict_handler="resolve")
    return root


VERBS = {
    "help": Verb(_configure_help, _help, settings=frozenset(), examples=_EXAMPLES),
    "completion": Verb(_configure_completion, _completion, settings=frozenset(), json=False, examples=_COMPLETION),
}
