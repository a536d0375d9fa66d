"""Settings: one table drives the flag, the SUPERVISOR_* variable and the key of supervisor.toml.

A value is looked for in that order and its source is remembered, because the first question about a
setting is where it came from, and a value that cannot be read must name the place to mend. `read` collects
every fault instead of stopping at the first; `Reading.config` refuses to build anything from faulty ones.

supervisor.toml is looked for where --config or SUPERVISOR_CONFIG say, else in
$XDG_CONFIG_HOME/gallery-supervisor/; never in the current directory, which may be anybody's photo folder.
"""

import os
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from protocol.errors import UsageError
from protocol.kernel import SandboxMode
from protocol.launch import ImageLimits
from protocol.messages import Recipe
from protocol.sockets import MAX_IPC_PATH_BYTES
from supervisor.kinds import read_kinds
from supervisor.parts import PartCommand, read_parts
from supervisor.policy.cache.settings import CacheSettings, PolicyName
from supervisor.policy.cleanup_settings import AlertSettings, CleanupSettings
from supervisor.policy.hours import Hours
from supervisor.policy.lease_book import LeaseSettings
from supervisor.policy.retention import Retention, Rule, from_settings
from supervisor.policy.sizes import GB, MB, human
from supervisor.policy.temp import TempSettings
from supervisor.policy.watch_settings import WatchSettings
from supervisor.recipes import all_recipes, read_recipes
from supervisor.settings import BY_NAME, PLAIN, SETTINGS, Setting
from supervisor.values import parse

PROGRAM = "gallery-supervisor"
FRONTEND, BACKEND, EVENTS = "frontend", "backend", "events"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor is started with; sizes in bytes, durations in seconds, paths absolute."""

    workers: int
    state_directory: str
    socket_directory: str
    memory_bytes: int | None = None
    """None: found by itself (control group, else the machine)."""
    recipes: dict[str, Recipe]
    item_timeout_seconds: float = 60.0
    timeout_tries: int = 1
    drain_seconds: float = 30.0
    nice: int = 10
    idle_io: bool = True
    between: Hours | None = None
    """None: work is begun at any time of the day."""
    batch_size_max: int = 512
    queue_max_items: int = 5_000_000
    batches_max: int = 10_000
    abandon_seconds: float = 600.0
    """What an open batch waits for a word of its client."""
    decisions_kept: int = 50_000
    exit_when_idle_seconds: float | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    min_workers: int = 1
    idle_shrink_seconds: float = 60.0
    """0: an idle pool keeps all its workers."""
    sandbox: SandboxMode = "best-effort"
    sandbox_read: str | None = None
    limits: ImageLimits = ImageLimits()
    watch: WatchSettings = WatchSettings()
    leases: LeaseSettings = LeaseSettings()
    cache: bool = True
    cache_bytes: int | None = None
    """None: 5 % of what is free on its disk, at most 10 GB."""
    cache_policy: PolicyName | None = None
    cache_memory_bytes: int = 50 * MB
    cache_hard_links: bool = False
    cache_entries: int = 2_000_000
    cache_ttl_seconds: float = 30 * 86_400.0
    temp_directory: str | None = None
    """None: below the state directory."""
    reaper: TempSettings = TempSettings()
    history_rows: int = 2_160
    retention: Retention = Retention()
    parts: dict[str, PartCommand] = {}
    settings_file: str | None = None
    http: tuple[str, int] | None = None
    http_roots: str | None = None
    http_hosts: str | None = None
    http_token: str | None = None
    http_upload_bytes: int | None = 2 * GB
    protection: bool = True
    cleanup: CleanupSettings = CleanupSettings()
    alerts: AlertSettings = AlertSettings()
    alert_command: str | None = None
    alert_webhook: str | None = None
    trace: str | None = None
    kernel_limits: Literal["auto", "off", "on"] = "auto"

    @property
    def library(self) -> list[str]:
        """What `sandbox_read` names, absolute."""
        named = filter(None, (self.sandbox_read or "").split(os.pathsep))
        return [os.path.abspath(os.path.expanduser(path)) for path in named]

    @property
    def frontend_endpoint(self) -> str:
        """Where clients connect."""
        return f"ipc://{self.socket_directory}/{FRONTEND}"

    @property
    def backend_endpoint(self) -> str:
        """Where workers connect."""
        return f"ipc://{self.socket_directory}/{BACKEND}"

    @property
    def events_endpoint(self) -> str:
        """Where decisions are published."""
        return f"ipc://{self.socket_directory}/{EVENTS}"

    def cache_settings(self, default_limit_bytes: int) -> CacheSettings:
        """What of this is the cache's; `default_limit_bytes` counts where no size is set."""
        return CacheSettings(
            limit_bytes=self.cache_bytes if self.cache_bytes is not None else default_limit_bytes,
            limit_entries=self.cache_entries,
            policy=self.cache_policy,
            ttl_seconds=self.cache_ttl_seconds,
            memory_bytes=self.cache_memory_bytes,
            hard_links=self.cache_hard_links,
        )


class StartSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor found and chose at its start, for the one screen that tells it."""

    budget_bytes: int
    budget_source: str
    pid: int
    sandbox: str = "off"
    """The layers that confine the workers."""
    notes: list[str] = []
    """What a person should know: a limit smaller than asked for, unfinished batches that go on, a missing source."""


class Reading:
    """What was read: values and their sources by setting name, and every fault found on the way."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.faults: list[str] = []
        self.file: str | None = None
        self.user_recipes: dict[str, Recipe] = {}
        self.kinds: dict[str, Rule] = {}
        self.parts: dict[str, PartCommand] = {}

    def raise_faults(self) -> None:
        """Raises UsageError with every fault, one a line, if there is any."""
        if self.faults:
            raise UsageError("\n".join(self.faults))

    @property
    def state_directory(self) -> str:
        """Where the state is: as set, else the default."""
        return self.values["state"] or default_state_directory()

    def config(self, usable_cores: int) -> Config:
        """Returns the configuration of a supervisor; `usable_cores` is used where no number of workers is set.

        Raises UsageError with every fault there is.
        """
        watch, limits = self._embedded("watch", WatchSettings), self._embedded("limits", ImageLimits)
        reaper = self._embedded("reaper", TempSettings)
        cleanup, alerts = self._embedded("cleanup", CleanupSettings), self._embedded("alerts", AlertSettings)
        leases = self._embedded("leases", LeaseSettings)
        self.faults += [f"watch.{fault}" for fault in watch.check()]
        self.faults += [f"leases.{fault}" for fault in leases.check()]
        self.faults += [f"cleanup.{fault}" for fault in cleanup.check()]
        self.faults += [f"alerts.{fault}" for fault in alerts.check()]
        self.faults += [f"reaper.{fault}" for fault in reaper.check()]
        self.faults += [f"limits.{f} must be at least 1" for f in limits.__struct_fields__ if getattr(limits, f) < 1]
        workers, least = self.values["workers"] or usable_cores, self.values["min-workers"]
        if least > workers:
            self.faults.append(f"min_workers is {least}, must be at most workers, which is {workers}")
        self.raise_faults()
        plain = {s.field: self.values[s.name] for s in PLAIN if s.field in Config.__struct_fields__}
        plain["workers"] = plain["workers"] or usable_cores
        plain["state_directory"] = _utf8(self.state_directory)
        plain["socket_directory"] = plain["socket_directory"] or socket_directory(self.state_directory)
        retention = from_settings(self.values["retention-minutes"], self.values["retention-count"], self.kinds)
        return Config(
            **plain,
            recipes=all_recipes(self.user_recipes),
            watch=watch,
            leases=leases,
            limits=limits,
            reaper=reaper,
            retention=retention,
            parts=self.parts,
            settings_file=self.file,
            cleanup=cleanup,
            alerts=alerts,
        )

    def _embedded(self, section: str, struct: type[msgspec.Struct]) -> Any:
        return struct(**{s.field: self.values[s.name] for s in SETTINGS if s.section == section})


def read(
    flags: Mapping[str, str | None],
    names: Collection[str] = frozenset(BY_NAME),
    environ: Mapping[str, str] | None = None,
    changes: Mapping[str, str] | None = None,
) -> Reading:
    """Reads the settings `names` from `changes` made while running, flags (both by setting name, and `config`),
    variables and the file.

    Value faults are collected in the Reading. Raises UsageError where the file itself cannot be read.
    """
    environ = os.environ if environ is None else environ
    reading = Reading()
    table = _load_file(reading, flags.get("config"), environ)
    for setting in SETTINGS:
        if setting.name in names:
            changed = (changes or {}).get(setting.name)
            _read_one(reading, setting, flags.get(setting.name), environ, table, changed)
    return reading


def default_state_directory(environ: Mapping[str, str] | None = None) -> str:
    """Returns $XDG_STATE_HOME/gallery-supervisor."""
    return os.path.join(_base("XDG_STATE_HOME", "~/.local/state", environ), PROGRAM)


def default_file(environ: Mapping[str, str] | None = None) -> str:
    """Returns $XDG_CONFIG_HOME/gallery-supervisor/supervisor.toml."""
    return os.path.join(_base("XDG_CONFIG_HOME", "~/.config", environ), PROGRAM, "supervisor.toml")


def socket_directory(state_directory: str, environ: Mapping[str, str] | None = None) -> str:
    """Returns where the sockets of a state directory are: in it, or where its path is too long for a Unix socket,
    in a short directory of this user named after it."""
    own = os.path.join(state_directory, "run")
    raw = os.fsencode(own)
    if len(raw) + 1 + len(FRONTEND) <= MAX_IPC_PATH_BYTES:
        return own
    import hashlib
    import tempfile

    environ = os.environ if environ is None else environ
    base = environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return os.path.join(base, f"{PROGRAM}-{os.getuid()}-{hashlib.sha256(raw).hexdigest()[:8]}")


def _read_one(
    reading: Reading,
    setting: Setting,
    flag: str | None,
    environ: Mapping[str, str],
    table: dict[str, Any],
    changed: str | None = None,
) -> None:
    reading.values[setting.name], reading.sources[setting.name] = setting.default, "default"
    value: object
    if changed is not None:
        value, source, base = changed, f"config set {setting.key_path}", None
    elif flag is not None:
        value, source, base = flag, f"flag {setting.flag}", None
    elif setting.variable in environ:
        value, source, base = environ[setting.variable], f"variable {setting.variable}", None
    else:
        held = table.get(setting.section, {}) if setting.section else table
        if setting.key not in held:
            return
        value, source = held[setting.key], f"{reading.file}, key {setting.key_path}"
        base = os.path.dirname(reading.file or "")
    try:
        found = parse(setting.kind, value, base_directory=base)
        if found is None and setting.default is not None:
            raise ValueError("'none' is not possible here")
        _check_range(setting, found)
    except ValueError as error:
        reading.faults.append(f"{source}: {error}")
        return
    reading.values[setting.name], reading.sources[setting.name] = found, source


def _check_range(setting: Setting, value: Any) -> None:
    if setting.choices and value not in setting.choices:
        raise ValueError(f"{value!r} is not possible; choose one of {', '.join(setting.choices)}")
    low, high = setting.at_least, setting.at_most
    if value is None or isinstance(value, bool | str):
        return
    if low is not None and value < low:
        raise ValueError(f"{_told(setting, value)} is too small, at least {_told(setting, low)} is needed")
    if high is not None and value > high:
        raise ValueError(f"{_told(setting, value)} is too large, at most {_told(setting, high)} is allowed")


def _told(setting: Setting, value: float) -> str:
    return human(value) if setting.kind == "size" else f"{value:,g}" if value < 1e6 else f"{value:,.0f}"


def _load_file(reading: Reading, flag: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    named, source = flag, "flag --config"
    if named is None and environ.get("SUPERVISOR_CONFIG"):
        named, source = environ["SUPERVISOR_CONFIG"], "variable SUPERVISOR_CONFIG"
    path = os.path.abspath(os.path.expanduser(named)) if named is not None else default_file(environ)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        if named is None:
            return {}
        raise UsageError(f"{source}: there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"the settings file {path} cannot be read: {error.strerror}") from error
    import tomllib  # most have no such file, and 'status' in a loop pays for each import

    try:
        table = tomllib.loads(text.decode())
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ones
        raise UsageError(f"the settings file {path} is not TOML: {error}") from error
    reading.file = path
    reading.user_recipes, faults = read_recipes(table.pop("recipes", {}))
    reading.kinds, unkind = read_kinds(table.pop("retention", {}))
    reading.parts, partless = read_parts(table.pop("parts", {}))
    reading.faults += [f"{path}, {fault}" for fault in [*faults, *unkind, *partless]]
    reading.faults += _unknown_keys(path, table)
    return {key: value for key, value in table.items() if not _is_bad_section(key, value)}


def _is_bad_section(key: str, value: object) -> bool:
    return any(s.section == key for s in SETTINGS) and not isinstance(value, dict)


def _unknown_keys(path: str, table: dict[str, Any]) -> list[str]:
    known = [setting.key_path for setting in SETTINGS]
    sections = {setting.section for setting in SETTINGS if setting.section}
    found: list[str] = []
    for key, value in table.items():
        if key in sections:
            if not isinstance(value, dict):
                found.append(f"{path}, key {key}: a table [{key}] is needed, not {value!r}")
                continue
            found += [f"{key}.{inner}" for inner in value if f"{key}.{inner}" not in known]
        elif key not in known:
            found.append(key)
    faults = []
    for key in found:
        if key.startswith(path):
            faults.append(key)
            continue
        near = _nearest(key, [*known, *sections, "recipes", "retention", "parts"])
        faults.append(f"{path}, key {key}: there is no such setting{near}")
    return faults


def _nearest(word: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; do you mean {near[0]!r}?" if near else "; 'supervisor config show' lists them"


def _base(variable: str, default: str, environ: Mapping[str, str] | None) -> str:
    environ = os.environ if environ is None else environ
    value = environ.get(variable, "")
    # The base directory specification has relative values ignored.
    return value if value.startswith("/") else os.path.expanduser(default)


def _utf8(directory: str) -> str:
    """The state directory's name travels in JSON and to the library that opens sockets; images may be named anyhow."""
    try:
        directory.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the name of the state directory is not UTF-8 ({os.fsencode(directory)!r}); choose another with --state"
        ) from error
    return directory
