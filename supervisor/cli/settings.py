"""`config show|check|set|reload` and `recipes`."""

import argparse

import msgspec

from protocol.errors import GalleryError, UsageError
from supervisor.cli.find import connect, endpoint_of
from supervisor.cli.options import Verb, flags_of
from supervisor.cli.output import print_json, say, table
from supervisor.config import Reading, default_file, read, socket_directory
from supervisor.recipes import BUILT_IN, DESCRIPTIONS, HIDDEN, all_recipes
from supervisor.settings import SETTINGS
from supervisor.values import show

_ALL = frozenset(setting.name for setting in SETTINGS)


_CONFIG_EXAMPLES = """  supervisor config show --json
  supervisor config set watch.critical_share 0.85 item_timeout 2m
  supervisor config set memory 1G --save"""


def _configure_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        default="show",
        choices=("show", "check", "set", "reload"),
        help="show: values and sources; check: all faults at once; set: change settings of the running supervisor; "
        "reload: have it read its settings file anew, as SIGHUP does",
    )
    parser.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="for set: e.g. watch.critical_share 0.85")
    parser.add_argument("--save", action="store_true", help="for set: write them to the settings file too")


def _config(arguments: argparse.Namespace) -> int:
    if arguments.what in ("set", "reload"):
        return _change(arguments)
    if arguments.pairs or arguments.save:
        raise UsageError(f"config {arguments.what} takes no settings; 'config set KEY VALUE' changes one")
    reading = read(flags_of(arguments))
    return _check(arguments, reading) if arguments.what == "check" else _show(arguments, reading)


def _change(arguments: argparse.Namespace) -> int:
    pairs = arguments.pairs
    if len(pairs) % 2 or bool(pairs) != (arguments.what == "set"):
        raise UsageError("config set takes pairs: config set KEY VALUE [KEY VALUE ...]; config reload takes none")
    with connect(arguments) as client:
        report = client.change_settings(dict(zip(pairs[::2], pairs[1::2], strict=True)), arguments.save)
    if arguments.json:
        print_json({"changed": [msgspec.to_builtins(one) for one in report.changed], "saved_to": report.saved_to})
        return 0
    for one in report.changed:
        print(f"{one.key}: {one.old} -> {one.new}{_WHEN[one.takes_effect]}")
    if not report.changed:
        print("nothing has changed")
    if report.saved_to is not None:
        say(f"written to {report.saved_to}")
    elif pairs:
        say("until the supervisor ends; --save writes it to the settings file")
    return 0


_WHEN = {"now": "", "new workers": "  (workers started from now on)", "restart": "  (only after a restart)"}


def _check(arguments: argparse.Namespace, reading: Reading) -> int:
    warning = None
    try:
        warning = crowded(reading)
    except GalleryError:
        pass  # its sentence is the list of faults, which is told below
    file = reading.file or f"{default_file()} (not there)"
    if arguments.json:
        print_json({"file": reading.file, "faults": reading.faults, "warnings": [warning] if warning else []})
    for fault in reading.faults:
        say(fault)
    if warning is not None:
        say(f"warning: {warning}")
    count = len(reading.faults)
    say(f"settings file: {file}; {count or 'no'} fault{'' if count == 1 else 's'}")
    return 2 if reading.faults else 0


def crowded(reading: Reading) -> str | None:
    """Returns the warning that the budget found here would not hold so many workers, None where it does. Raises
    ConfigFaults."""
    from supervisor.mechanism.memory import find_budget, usable_cores
    from supervisor.policy.crowding import outlook

    config = reading.config(usable_cores())
    return outlook(find_budget(config.memory_bytes, 0).bytes, config.workers, config.watch)


def _show(arguments: argparse.Namespace, reading: Reading) -> int:
    reading.raise_faults()
    values = {**reading.values, "state": reading.state_directory}
    values["socket"] = values["socket"] or socket_directory(values["state"])
    if values["workers"] is None:
        from supervisor.mechanism.memory import usable_cores

        values["workers"] = usable_cores()
    shown = [setting for setting in SETTINGS if not setting.hidden]
    values |= {s.name: "(secret)" for s in shown if s.secret and values[s.name] is not None}
    values |= {s.name: str(values[s.name]) for s in shown if s.kind == "hours" and values[s.name] is not None}
    if arguments.json:
        settings = {s.key_path: {"value": values[s.name], "source": reading.sources[s.name]} for s in shown}
        print_json({"file": reading.file, "settings": settings})
        return 0
    rows = [(s.key_path, show(s.kind, values[s.name]), reading.sources[s.name], s.variable) for s in shown]
    print(table(("KEY", "VALUE", "FROM", "VARIABLE"), rows))
    say(f"settings file: {reading.file or default_file() + ' (not there)'}")
    return 0


def _configure_recipes(parser: argparse.ArgumentParser) -> None:
    """`recipes` has no arguments of its own."""


def _recipes(arguments: argparse.Namespace) -> int:
    """Lists those of the supervisor that runs; where none does, those a start would have."""
    from protocol.client import Client
    from protocol.sockets import is_listening

    reading = read(flags_of(arguments))
    endpoint = endpoint_of(reading)
    if endpoint is not None and is_listening(endpoint):
        with Client(endpoint) as client:
            found = {recipe.name: recipe for recipe in client.hello().recipes}
    else:
        reading.raise_faults()
        found = all_recipes(reading.user_recipes)
    listed = [recipe for name, recipe in found.items() if name not in HIDDEN]
    if arguments.json:
        print_json([msgspec.to_builtins(recipe) for recipe in listed])
        return 0
    rows = []
    for recipe in listed:
        steps = ", ".join(step.operation for step in recipe.steps)
        rows.append(
            (recipe.name, "built in" if recipe.name in BUILT_IN else "yours", DESCRIPTIONS.get(recipe.name, steps))
        )
    print(table(("RECIPE", "", "WHAT IT DOES"), rows))
    return 0


VERBS = {
    "config": Verb(_configure_config, _config, _ALL, examples=_CONFIG_EXAMPLES),
    "recipes": Verb(_configure_recipes, _recipes),
}
