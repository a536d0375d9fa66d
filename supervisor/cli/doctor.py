"""`doctor`: what this machine and installation offer, and what stands in the way.

One line a fact: `ok`, `warn` (works, but less well) or `fail` (does not work), each of the latter two with
what to do. Exit 1 when something fails.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from typing import Literal

import msgspec

from protocol import kernel
from protocol.errors import GalleryError
from supervisor.cli.doctor_place import examine_place
from supervisor.cli.options import Verb, flags_of
from supervisor.cli.output import print_json, table
from supervisor.cli.settings import crowded
from supervisor.config import Reading, read, socket_directory
from supervisor.policy.sizes import GB, human
from supervisor.settings import SETTINGS

Verdict = Literal["ok", "warn", "fail"]

PACKAGES = ("pyzmq", "multiprocess", "psutil", "orjson", "msgspec", "pillow", "pyvips", "tqdm")
OURS = ("protocol", "workers", "supervisor")
FREE_BYTES = 1 * GB
"""Below it a state directory is likely to fill up: the queue of a million images takes some 200 MB."""


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at, what was found, what to do about it."""

    verdict: Verdict
    subject: str
    text: str


def _configure(parser: argparse.ArgumentParser) -> None:
    """All it takes are settings."""


def _run(arguments: argparse.Namespace) -> int:
    findings = list(examine(flags_of(arguments)))
    if arguments.json:
        print_json([msgspec.to_builtins(finding) for finding in findings])
    else:
        print(table(("", "WHAT", "FOUND"), [(f.verdict, f.subject, f.text) for f in findings]))
    return 1 if any(finding.verdict == "fail" for finding in findings) else 0


def examine(flags: dict[str, str]) -> Iterator[Finding]:
    """Yields the findings of every check."""
    yield _python()
    yield from _packages()
    yield from _shadows()
    yield from _settings(flags)
    yield from _memory()
    yield _fork_server()
    yield _sandbox(flags)
    yield _sqlite()
    yield from _place()


def _place() -> Iterator[Finding]:
    from supervisor.mechanism.memory import find_budget

    limit = find_budget(None, 0)
    for seen in examine_place(limit.bytes if limit.limit_path is not None else None):
        yield Finding(*seen)


def _python() -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    return Finding("ok", "python", found)


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding("ok", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", name, f"not installed; install it into this environment: pip install {name}")


def _shadows() -> Iterator[Finding]:
    """Our import names are common words: another distribution in this environment may bring one of them."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    for name in OURS:
        spec = importlib.util.find_spec(name)
        found = os.path.realpath(spec.origin) if spec is not None and spec.origin else None
        if found is None:
            yield Finding("fail", f"package {name}", "not found; install gallery-supervisor again")
        elif os.path.dirname(os.path.dirname(found)) != home:
            yield Finding(
                "fail", f"package {name}",
                f"{found} is not ours and stands in its way; install gallery-supervisor in an environment of its own",
            )  # fmt: skip
        else:
            yield Finding("ok", f"package {name}", os.path.dirname(found))
    for name, owners in importlib.metadata.packages_distributions().items():
        others = sorted(set(owners) - {"gallery-supervisor"})
        if name in OURS and others:
            yield Finding(
                "warn", f"package {name}",
                f"also installed by {', '.join(others)}; use an environment of its own for gallery-supervisor",
            )  # fmt: skip


def _settings(flags: dict[str, str]) -> Iterator[Finding]:
    try:
        reading = read(flags, frozenset(setting.name for setting in SETTINGS))
        warning = crowded(reading)
    except GalleryError as error:
        for line in str(error).splitlines():
            yield Finding("fail", "settings", line)
        return
    yield Finding("ok", "settings", reading.file or "no supervisor.toml, defaults and variables only")
    if warning is not None:
        yield Finding("warn", "workers", warning)
    yield from _state(reading)


def _state(reading: Reading) -> Iterator[Finding]:
    from supervisor.mechanism.state import StateDirectory, file_system_type, is_network

    directory = reading.state_directory
    kind = file_system_type(directory)
    holder = StateDirectory(directory).holder()
    present = directory
    while not os.path.isdir(present):
        present = os.path.dirname(present)
    free = shutil.disk_usage(present).free
    if kind is not None and is_network(kind):
        yield Finding("fail", "state directory", f"{directory} is on a network file system ({kind}); use --state")
    elif not os.access(present, os.W_OK | os.X_OK):
        yield Finding("fail", "state directory", f"{present} cannot be written to; use --state or change its rights")
    elif free < FREE_BYTES:
        yield Finding("warn", "state directory", f"{directory}: only {human(free)} are free on its disk")
    else:
        used = f", in use by the supervisor with pid {holder}" if holder is not None else ""
        yield Finding("ok", "state directory", f"{directory}, {human(free)} free{used}")
    sockets = reading.values["socket"] or socket_directory(directory)
    if reading.values["socket"] is None and not sockets.startswith(directory):
        text = f"{sockets}, because the state directory's path is too long for a Unix socket"
        yield Finding("ok", "socket directory", text)
    else:
        yield Finding("ok", "socket directory", sockets)


def _memory() -> Iterator[Finding]:
    from supervisor.mechanism.memory import describe
    from supervisor.mechanism.memory.worker_groups import look_for

    for line in (*describe(), f"limits of workers by the kernel: {look_for('auto').reason}"):
        subject, _, text = line.partition(": ")
        yield Finding("warn" if text.startswith("missing") else "ok", subject, text)


def _fork_server() -> Finding:
    if not (hasattr(os, "fork") and hasattr(socket, "SCM_RIGHTS")):
        return Finding("fail", "fork server", "impossible here: it forks, and passes descriptors over Unix sockets")
    if not hasattr(os, "pidfd_open"):
        return Finding("warn", "fork server", "possible, but without pidfd: a worker's death is seen by its sentinel")
    return Finding("ok", "fork server", "possible, with pidfd")


def _sandbox(flags: dict[str, str]) -> Finding:
    """What confines a worker here; a fault only where the settings require what there is not."""
    found = kernel.offer()
    lacks = found.lacking()
    try:
        mode = read(flags, {"sandbox"}).values["sandbox"]
    except GalleryError:
        mode = "unknown"  # told among the settings
    if not lacks:
        return Finding("ok", "sandbox", f"{found.level}; setting: {mode}")
    verdict: Verdict = "fail" if mode == "require" else "warn"
    return Finding(verdict, "sandbox", f"{found.level}; setting: {mode}; {'; '.join(lacks)}")


def _sqlite() -> Finding:
    from supervisor.mechanism.journal.edition import NEEDED, WITHOUT_RESET_BUG, sqlite_edition

    edition = sqlite_edition()
    name = ".".join(map(str, edition))
    if edition < NEEDED:
        return Finding(
            "fail", "sqlite", f"{name}; {'.'.join(map(str, NEEDED))} or later is needed: take a newer Python"
        )
    if edition < WITHOUT_RESET_BUG:
        return Finding(
            "ok", "sqlite", f"{name}; its WAL-reset bug needs two writers or checkpointers, here there is one"
        )
    return Finding("ok", "sqlite", name)


VERBS = {"doctor": Verb(_configure, _run, frozenset({"state", "socket", "sandbox", "memory", "workers"}))}
