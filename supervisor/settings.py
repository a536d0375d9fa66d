"""Every setting: one table drives the flag, the SUPERVISOR_* variable and the key of supervisor.toml."""

from typing import Any, get_args

import msgspec

from protocol.kernel import SandboxMode
from protocol.launch import ImageLimits
from supervisor.policy.cache.settings import POLICY_NAMES
from supervisor.policy.cleanup_settings import AlertSettings, CleanupSettings
from supervisor.policy.lease_book import LeaseSettings
from supervisor.policy.sizes import GB, MB
from supervisor.policy.temp import TempSettings
from supervisor.policy.watch_settings import WatchSettings
from supervisor.settings_help import HELP
from supervisor.values import Kind, show


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. `name` is its flag without dashes in front; key and variable follow from it."""

    name: str
    field: str
    kind: Kind
    default: Any
    help: str
    section: str = ""
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    hidden: bool = False
    secret: bool = False
    """Its value opens something (a webhook's address does): it is never shown."""

    def shown(self, value: object) -> str:
        """Returns a value of it for people."""
        return "(secret)" if self.secret and value is not None else show(self.kind, value)

    @property
    def flag(self) -> str:
        """`--item-timeout`"""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """`SUPERVISOR_ITEM_TIMEOUT`"""
        return "SUPERVISOR_" + self.name.replace("-", "_").upper()

    @property
    def key(self) -> str:
        """`item_timeout`, within its table `section`"""
        return self.field if self.section else self.name.replace("-", "_")

    @property
    def key_path(self) -> str:
        """`watch.elevated_share`: the key with its table."""
        return f"{self.section}.{self.key}" if self.section else self.key


PLAIN = (
    Setting(name="state", field="state_directory", kind="path", default=None,
            help="directory of the queue and its endpoint [$XDG_STATE_HOME/gallery-supervisor]"),
    Setting(name="socket", field="socket_directory", kind="path", default=None,
            help="directory of the sockets [below the state directory, or a short one where that is too deep]"),
    Setting(name="recipe", field="recipe", kind="text", default="thumbs",
            help="recipe of a submission that names none [thumbs]"),
    Setting(name="workers", field="workers", kind="count", default=None, at_least=1, at_most=1024,
            help="worker processes [the cores this process may use]"),
    Setting(name="min-workers", field="min_workers", kind="count", default=1, at_least=1,
            help="workers that stay when there has been nothing to do [1]"),
    Setting(name="idle-shrink", field="idle_shrink_seconds", kind="duration", default=60.0, at_least=0,
            help="after so long without work the other workers are let go; 0: never [60s]"),
    Setting(name="memory", field="memory_bytes", kind="size", default=None, at_least=32 * MB,
            help="what all processes together may use, e.g. 512M or 1.5G [control group's limit or machine]"),
    Setting(name="item-timeout", field="item_timeout_seconds", kind="duration", default=60.0, at_least=0.1,
            help="longest time one image may take, e.g. 90s or 5m [60s]"),
    Setting(name="timeout-tries", field="timeout_tries", kind="count", default=1, at_least=1, at_most=10,
            help="how often an image may reach that time limit before it is quarantined [1]"),
    Setting(name="drain", field="drain_seconds", kind="duration", default=30.0, at_least=0,
            help="how long a stop waits for images in progress [30s]"),
    Setting(name="nice", field="nice", kind="count", default=10, at_least=-20, at_most=19,
            help="niceness of the workers [10]"),
    Setting(name="idle-io", field="idle_io", kind="switch", default=True,
            help="yes or no: workers use the disk only when nobody else does [yes]"),
    Setting(name="between", field="between", kind="hours", default=None,
            help="HH:MM-HH:MM by this machine's clock, e.g. 22:00-06:00: work is begun only then [always]"),
    Setting(name="batch-size-max", field="batch_size_max", kind="count", default=512, at_least=1, at_most=4096,
            help="most images a worker is given at once [512]"),
    Setting(name="queue-max-items", field="queue_max_items", kind="count", default=5_000_000, at_least=1,
            help="images that may wait; further submissions are refused [5000000]"),
    Setting(name="batches-max", field="batches_max", kind="count", default=10_000, at_least=1,
            help="unfinished batches; further ones are refused [10000]"),
    Setting(name="abandon-after", field="abandon_seconds", kind="duration", default=600.0, at_least=0.1,
            help="a batch being submitted is closed as it is when its client is silent for so long [10m]"),
    Setting(name="decisions-kept", field="decisions_kept", kind="count", default=50_000, at_least=1,
            help="decisions kept on the disk for 'why' and 'events', the oldest go [50000]"),
    Setting(name="sandbox", field="sandbox", kind="text", default="best-effort", choices=get_args(SandboxMode),
            help="require, best-effort or off: keep workers to their images, outputs and temp directory [best-effort]"),
    Setting(name="sandbox-read", field="sandbox_read", kind="text", default=None,
            help="further directories that operations may read (models, fonts), separated by ':' [none]"),
    Setting(name="temp", field="temp_directory", kind="path", default=None,
            help="directory for the workers' temp files; several supervisors may share one [in the state directory]"),
    Setting(name="history-rows", field="history_rows", kind="count", default=2_160, at_least=1_000, at_most=100_000,
            help="rows of memory history in each of its three tiers: by the second, 10 s and 2 min [2160]"),
    Setting(name="retention-minutes", field="retention_minutes", kind="number", default=10_080.0, at_least=0.01,
            help="finished batches not looked at for so long are forgotten [10080: 7 days]"),
    Setting(name="retention-count", field="retention_count", kind="count", default=1_000, at_least=1,
            help="finished batches kept, the least recently used go [1000]"),
    Setting(name="cache", field="cache", kind="switch", default=True,
            help="yes or no: keep results by content, so that the same image is not worked on twice [yes]"),
    Setting(name="cache-size", field="cache_bytes", kind="size", default=None, at_least=0,
            help="what the cache may take on the disk [5 % of what is free, at most 10 GB]"),
    Setting(name="cache-entries", field="cache_entries", kind="count", default=2_000_000, at_least=1, at_most=10**8,
            help="how many results the cache may hold; its index takes some 300 bytes for each [2,000,000]"),
    Setting(name="cache-ttl", field="cache_ttl_seconds", kind="duration", default=30 * 86_400.0, at_least=1,
            help="how long a result is kept under the policy ttl [30 d]"),
    Setting(name="cache-policy", field="cache_policy", kind="text", default=None, choices=POLICY_NAMES,
            help="who stays: cost, adaptive, lru, lfu or ttl [as chosen by 'cache policy', at first cost]"),
    Setting(name="cache-memory", field="cache_memory_bytes", kind="size", default=50 * MB, at_least=0,
            help="small values held in memory above the index [50M]"),
    Setting(name="cache-hard-links", field="cache_hard_links", kind="switch", default=False,
            help="yes or no: deliver by hard link; saves space, but changing an output changes the cache [no]"),
    Setting(name="log-level", field="log_level", kind="text", default="info",
            choices=("debug", "info", "warning", "error"),
            help="debug, info, warning or error: what is written to standard error [info]"),
    Setting(name="log-format", field="log_format", kind="text", default="text", choices=("text", "json"),
            help="text for people or json for machines, one line an event [text]"),
    Setting(name="http", field="http", kind="address", default=None,
            help="HOST:PORT of the HTTP gateway and its dashboard, e.g. 127.0.0.1:8080 [none]"),
    Setting(name="http-roots", field="http_roots", kind="text", default=None,
            help="directories that HTTP may name, read from and write to, separated by ':' [none: uploads alone]"),
    Setting(name="http-hosts", field="http_hosts", kind="text", default=None,
            help="further names under which the gateway is reached, separated by ',' [its address]"),
    Setting(name="http-token", field="http_token", kind="secret", secret=True, default=None,
            help="what HTTP clients must say, 16 characters or more [on loopback none, else made: STATE/http/token]"),
    Setting(name="http-upload", field="http_upload_bytes", kind="size", default=2 * GB, at_least=0,
            help="what uploaded images and their outputs may take on the disk [2G]"),
    Setting(name="protection", field="protection", kind="switch", default=True,
            help="yes or no: stop in order (exit code 75) when memory cannot be had back in an emergency [yes]"),
    Setting(name="kernel-limits", field="kernel_limits", kind="text", default="auto", choices=("auto", "off", "on"),
            help="auto, on or off: a control group for each worker, as back-stop; on: of version 1 too [auto]"),
    Setting(name="trace", field="trace", kind="path", default=None,
            help="a file to which every look at memory is appended, for 'why --replay' [none]"),
    Setting(name="alert-command", field="alert_command", kind="text", default=None,
            help="a command that gets each alert as JSON on its standard input [none]"),
    Setting(name="alert-webhook", field="alert_webhook", kind="text", secret=True, default=None,
            help="a URL (http or https) that each alert is sent to as JSON [none]"),
    Setting(name="exit-when-idle", field="exit_when_idle_seconds", kind="duration", default=None, at_least=0,
            help="stop when there has been nothing to do for so long [never]", hidden=True),
)  # fmt: skip


def section(section: str, struct: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """Returns a setting for every field of an embedded struct; the kind follows from the unit in its name."""
    found = []
    for field in msgspec.structs.fields(struct):
        kind: Kind = "size" if field.name.endswith(("_bytes", "_bytes_per_second")) else "number"
        if field.name.endswith("_seconds"):
            kind = "duration"
        elif field.type is int and kind == "number":
            kind = "count"
        found.append(
            Setting(
                name=f"{section}-{field.name.replace('_', '-')}",
                field=field.name,
                kind=kind,
                default=field.default,
                help=f"{HELP[section].get(field.name, field.name)} [{show(kind, field.default)}]",
                section=section,
            )
        )
    return tuple(found)


SETTINGS: tuple[Setting, ...] = (
    *PLAIN,
    *section("limits", ImageLimits),
    *section("watch", WatchSettings),
    *section("leases", LeaseSettings),
    *section("reaper", TempSettings),
    *section("cleanup", CleanupSettings),
    *section("alerts", AlertSettings),
)
CLIENT_SETTINGS = frozenset({"state", "socket", "recipe"})
"""What a client reads; the others concern the supervisor alone."""
BY_NAME = {setting.name: setting for setting in SETTINGS}


def setting_of(key: str) -> Setting | None:
    """Returns the setting of a key path (`watch.elevated_share`) or a flag's name; None where there is none."""
    by_key = {setting.key_path: setting for setting in SETTINGS}
    return by_key.get(key) or BY_NAME.get(key.removeprefix("--"))
