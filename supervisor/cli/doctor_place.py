"""What `doctor` sees of the place the supervisor is to serve in: a container, a service, a plain machine.

Nothing here fails: whatever it is, a supervisor can run. What would surprise later is told, with what to change.
The root of the file system is an argument, so that a test can build the places.
"""

import configparser
import importlib.util
import os
import resource
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from supervisor.values import parse_duration

UNITS = ("etc/systemd/system/gallery-supervisor.service", "usr/lib/systemd/system/gallery-supervisor.service")
DRAIN_SECONDS = 30.0
AFTER_DRAIN_SECONDS = 15.0
"""Workers are terminated and killed (5 s each), the journal is closed."""
LEAST_DESCRIPTORS = 1024
"""A worker takes some 20 descriptors of the supervisor; a thousand clients take a thousand."""
EXTRAS = {
    "web": ("uvicorn", "the HTTP gateway and its dashboard"),
    "ocr": ("rapidocr", "the operation ocr"),
    "embed": ("onnxruntime", "the operation embed and duplicates --by vector"),
    "plot": ("matplotlib", "history --plot"),
    "completion": ("shtab", "shell completion"),
}
"""Extra: (a module it brings, what it is for)."""


class Seen(NamedTuple):
    """One finding about the place."""

    verdict: Literal["ok", "warn"]
    subject: str
    text: str


def examine_place(limit_bytes: int | None, root: str = "/", environ: Mapping[str, str] = os.environ) -> Iterator[Seen]:
    """Yields what there is to tell; `limit_bytes` is the control group's limit of memory, None where there is none."""
    container = _container(root, environ)
    if container is not None:
        yield from _in_container(container, limit_bytes, root)
    yield from _unit(root)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < LEAST_DESCRIPTORS:
        yield Seen("warn", "descriptors", f"at most {soft} open files; raise it: ulimit -n {LEAST_DESCRIPTORS}")
    missing = [name for name, (module, _) in EXTRAS.items() if importlib.util.find_spec(module) is None]
    present = ", ".join(name for name in EXTRAS if name not in missing) or "none"
    text = f"installed: {present}"
    if missing:
        text += "; not installed: " + ", ".join(f"{name} ({EXTRAS[name][1]})" for name in missing)
        text += f": pip install 'gallery-supervisor[{','.join(missing)}]'"
    yield Seen("ok", "extras", text)


def _container(root: str, environ: Mapping[str, str]) -> str | None:
    """Returns what kind of container this is, None where it seems to be none."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    for mark, name in ((".dockerenv", "Docker"), ("run/.containerenv", "Podman")):
        if os.path.exists(os.path.join(root, mark)):
            return name
    return "a dyno" if environ.get("DYNO") else None


def _in_container(name: str, limit_bytes: int | None, root: str) -> Iterator[Seen]:
    if limit_bytes is None:
        yield Seen(
            "warn", "container",
            f"{name}, without a limit of memory: the budget would be the whole machine's; give the container a limit, "
            "or say --memory",
        )  # fmt: skip
    else:
        yield Seen("ok", "container", f"{name}, its limit of memory is the budget")
    try:
        with open(os.path.join(root, "proc/1/comm"), encoding="utf-8", errors="replace") as file:
            first = file.read().strip()
    except OSError:
        return
    if first in ("supervisor", "python", "python3"):
        yield Seen(
            "warn", "PID 1",
            f"{first} itself: nobody reaps the orphans that a dead template leaves; start it below tini, or with "
            "docker run --init",
        )  # fmt: skip


def _unit(root: str) -> Iterator[Seen]:
    for name in UNITS:
        path = os.path.join(root, name)
        if not os.path.exists(path):
            continue
        unit = configparser.RawConfigParser(strict=False, comment_prefixes=("#", ";"), delimiters=("=",))
        try:
            unit.read(path, encoding="utf-8")
            service = dict(unit["Service"])
        except (configparser.Error, KeyError, OSError, UnicodeDecodeError) as error:
            yield Seen(
                "warn", "systemd unit", f"{path} cannot be read: {error}; take deploy/gallery-supervisor.service"
            )
            return
        faults = list(_faults(service))
        if faults:
            yield Seen("warn", "systemd unit", f"{path}: {'; '.join(faults)}")
        else:
            yield Seen("ok", "systemd unit", path)
        return


def _faults(service: Mapping[str, str]) -> Iterator[str]:
    words = service.get("execstart", "").split()
    said = words[words.index("--drain") + 1] if "--drain" in words[:-1] else ""
    drain = _duration(said) or DRAIN_SECONDS
    stop = _duration(service.get("timeoutstopsec", "90s"))
    if stop is not None and stop < drain + AFTER_DRAIN_SECONDS:
        yield f"TimeoutStopSec={stop:g}s cuts the drain of {drain:g} s short; give it {drain + AFTER_DRAIN_SECONDS:g}s"
    if service.get("killmode") != "mixed":
        yield "KillMode=mixed is missing: TERM would reach the workers before they can be drained"
    if service.get("type") == "notify" and "watchdogsec" not in service:
        yield "WatchdogSec= is missing: a loop that is stuck would not be restarted"
    if service.get("type") != "notify":
        yield "Type=notify is missing: the service would count as started before it takes work"
    if "memorymax" not in service:
        yield "MemoryMax= is missing: the budget is the whole machine's"
    if service.get("restart", "no") == "no":
        yield "Restart=on-failure is missing: nobody starts it again"


def _duration(text: str) -> float | None:
    """Returns seconds; systemd takes a bare number for seconds, as we do."""
    try:
        return parse_duration(text) if text else None
    except ValueError:
        return None
