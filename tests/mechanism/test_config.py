"""Settings: where they come from, what is wrong with them, and values as people write them."""

import json
from pathlib import Path

import msgspec
import pytest

from protocol.errors import UsageError
from protocol.launch import WorkerStart
from protocol.sockets import MAX_IPC_PATH_BYTES
from supervisor.cli import main
from supervisor.cli.doctor import FREE_BYTES
from supervisor.config import read, socket_directory
from supervisor.mechanism.memory.budget import RESERVE_BYTES
from supervisor.mechanism.trace_file import LIMIT_BYTES
from supervisor.opening import GATEWAY_BYTES
from supervisor.parts import MEMORY_BYTES
from supervisor.policy.cache.settings import DEFAULT_LIMIT_BYTES, CacheSettings
from supervisor.policy.lease_book import LeaseSettings
from supervisor.policy.memory_leases import SMALLEST_POOL_BYTES
from supervisor.policy.sizes import human
from supervisor.recipes import all_recipes
from supervisor.settings import BY_NAME, SETTINGS
from supervisor.settings_help import HELP
from supervisor.values import parse, parse_duration, parse_size, show, show_address, show_duration


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config" / "gallery-supervisor" / "supervisor.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_setting_of_a_table_is_explained_and_nothing_else() -> None:
    fields = {(setting.section, setting.field) for setting in SETTINGS if setting.section}
    assert fields == {(table, field) for table, phrases in HELP.items() for field in phrases}
    phrases = [phrase for table in HELP.values() for phrase in table.values()]
    assert len(set(phrases)) == len(phrases) and min(map(len, phrases)) > 10


def test_every_setting_is_shown_as_json_and_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = {"between": "22:00-06:00", "http": "127.0.0.1:80", "memory": "1G", "alert-webhook": "http://a/b"}
    for name, value in text.items():
        monkeypatch.setenv(BY_NAME[name].variable, value)
    monkeypatch.setenv("SUPERVISOR_STATE", str(tmp_path))
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert shown["between"] == {"value": "22:00-06:00", "source": "variable SUPERVISOR_BETWEEN"}
    assert shown["memory"]["value"] == 1 << 30 and shown["alert_webhook"]["value"] == "(secret)"
    assert main(["config", "show"]) == 0
    assert "22:00-06:00" in capsys.readouterr().out


def test_every_size_is_told_as_the_round_number_it_is_set_to() -> None:
    sizes = {setting.flag: setting for setting in SETTINGS if setting.kind == "size"}
    defaults = {
        **{flag: setting.default for flag, setting in sizes.items()},
        **{f"least of {flag}": setting.at_least and int(setting.at_least) for flag, setting in sizes.items()},
        "[parts]": MEMORY_BYTES,
        "gateway": GATEWAY_BYTES,
        "pool of memory leases": SMALLEST_POOL_BYTES,
        "cache": DEFAULT_LIMIT_BYTES,
        "machine": RESERVE_BYTES,
        "free for a state directory": FREE_BYTES,
        "trace": LIMIT_BYTES,
    }
    told = {name: show("size", value) for name, value in defaults.items() if value}
    assert len(told) > 15 and {told[f"--watch-{name}-bytes"] for name in ("allowance-warning", "keep-free")} == {
        "50 MB", "30 MB"
    }  # fmt: skip
    assert {name: text for name, text in told.items() if parse_size(text) != defaults[name]} == {}
    said = {flag: setting.help.rpartition("[")[2].rstrip("]") for flag, setting in sizes.items() if setting.default}
    assert {flag: text for flag, text in said.items() if parse_size(text) != defaults[flag]} == {}
    (handed,) = (field for field in msgspec.structs.fields(WorkerStart) if field.name == "lease_from_bytes")
    assert handed.default == LeaseSettings().from_bytes


def test_defaults(home: dict[str, str]) -> None:
    config = read({}, environ=home).config(usable_cores=3)
    assert (config.workers, config.memory_bytes, config.item_timeout_seconds) == (3, None, 60.0)
    assert set(config.recipes) == set(all_recipes({}))


def test_flag_before_variable_before_file(tmp_path: Path, home: dict[str, str]) -> None:
    file = write(tmp_path, 'workers = 1\nmemory = "1G"\nnice = 5\n[watch]\nelevated_share = 0.5\n')
    environ = {**home, "SUPERVISOR_WORKERS": "2", "SUPERVISOR_MEMORY": "2G"}
    reading = read({"workers": "3"}, environ=environ)
    config = reading.config(1)
    assert (config.workers, config.memory_bytes, config.nice, config.watch.elevated_share) == (3, 2 << 30, 5, 0.5)
    assert reading.sources["workers"] == "flag --workers"
    assert reading.sources["memory"] == "variable SUPERVISOR_MEMORY"
    assert reading.sources["nice"] == f"{file}, key nice"
    assert reading.sources["drain"] == "default"


def test_every_setting_can_be_set_in_all_three_ways(tmp_path: Path, home: dict[str, str]) -> None:
    text = {
        "size": "48M", "duration": "3s", "count": "7", "number": "0.5", "switch": "no", "path": "/x", "text": "y",
        "address": "[::1]:8080", "secret": "0123456789abcdef", "hours": "22:00-06:00",
    }  # fmt: skip
    for setting in SETTINGS:
        value = setting.choices[-1] if setting.choices else text[setting.kind]
        if setting.kind == "count" and setting.at_least is not None:
            value = str(max(int(value), int(setting.at_least)))
        quoted = value if setting.kind in ("count", "number") else f'"{value}"'
        table = f"[{setting.section}]\n" if setting.section else ""
        write(tmp_path, f"{table}{setting.key} = {quoted}\n")
        found = [
            read({setting.name: value}, environ=home).values[setting.name],
            read({}, environ={**home, setting.variable: value}).values[setting.name],
            read({}, environ=home).values[setting.name],
        ]
        assert found == [parse(setting.kind, value)] * 3, setting.name


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "expected"),
    [
        ({"workers": "four"}, {}, "", "flag --workers: 'four' is not a whole number"),
        ({}, {"SUPERVISOR_MEMORY": "lots"}, "", "variable SUPERVISOR_MEMORY: 'lots' is not a size"),
        ({}, {}, 'drain = "soon"', "supervisor.toml, key drain: 'soon' is not a duration"),
        ({}, {}, "[watch]\nwarning_share = true", "key watch.warning_share: True is not a number"),
        ({"workers": "0"}, {}, "", "0 is too small, at least 1"),
        ({"memory": "12"}, {}, "", "12 bytes is too small, at least 32 MB is needed"),
        ({"http": "8080"}, {}, "", "flag --http: '8080' is not an address like 127.0.0.1:8080"),
        ({"http": "::1:8080"}, {}, "", "'::1:8080' is not an address"),
        ({}, {"SUPERVISOR_HTTP": "x:70000"}, "", "variable SUPERVISOR_HTTP: 'x:70000' is not an address"),
        ({}, {"SUPERVISOR_HTTP_TOKEN": "short"}, "", "variable SUPERVISOR_HTTP_TOKEN: a secret has 16 characters"),
        ({"nice": "40"}, {}, "", "40 is too large, at most 19"),
        ({}, {}, "wrokers = 3", "key wrokers: there is no such setting; do you mean 'workers'?"),
        (
            {},
            {},
            "[watch]\nelevated = 0.5",
            "key watch.elevated: there is no such setting; do you mean 'watch.elevated",
        ),
        ({}, {}, "watch = 3", r"a table \[watch\] is needed"),
        ({}, {}, "exit_when_idel = 3", "no such setting"),
        ({"watch-elevated-share": "0.9"}, {}, "", "watch.elevated_share is 0.9, must be below warning_share"),
        ({"limits-frames": "0"}, {}, "", "limits.frames must be at least 1"),
        ({"drain": "none"}, {}, "", "'none' is not possible here"),
    ],
)
def test_a_fault_names_its_source(
    tmp_path: Path, home: dict[str, str], flags: dict[str, str], environ: dict[str, str], toml: str, expected: str
) -> None:
    if toml:
        write(tmp_path, toml)
    with pytest.raises(UsageError, match=expected):
        read(flags, environ={**home, **environ}).config(1)


def test_all_faults_are_told_at_once(tmp_path: Path, home: dict[str, str]) -> None:
    write(tmp_path, 'memory = "x"\nunknown = 1\n[recipes.thumbs]\nsteps = []\n')
    reading = read({"workers": "-1"}, environ={**home, "SUPERVISOR_DRAIN": "y"})
    with pytest.raises(UsageError) as caught:
        reading.config(1)
    for word in ("workers", "SUPERVISOR_DRAIN", "key memory", "key unknown", "recipes.thumbs"):
        assert word in str(caught.value)
    assert len(reading.faults) == 5


def test_the_cache_gets_what_is_set_of_it(home: dict[str, str]) -> None:
    plain = read({}, environ=home).config(usable_cores=1).cache_settings(7)
    assert plain == CacheSettings(limit_bytes=7, memory_bytes=50 * 1024**2)
    flags = {
        "cache-size": "3M", "cache-entries": "9", "cache-ttl": "2d", "cache-policy": "ttl", "cache-memory": "1M",
        "cache-hard-links": "yes",
    }  # fmt: skip
    assert read(flags, environ=home).config(usable_cores=1).cache_settings(7) == CacheSettings(
        limit_bytes=3 * 1024**2, limit_entries=9, ttl_seconds=172_800.0, policy="ttl", memory_bytes=1024**2,
        hard_links=True,
    )  # fmt: skip


def test_a_file_that_was_named_must_be_there(tmp_path: Path, home: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="flag --config: there is no file"):
        read({"config": str(tmp_path / "none.toml")}, environ=home)
    with pytest.raises(UsageError, match="variable SUPERVISOR_CONFIG: there is no file"):
        read({}, environ={**home, "SUPERVISOR_CONFIG": str(tmp_path / "none.toml")})


def test_a_file_in_the_current_directory_is_not_read(
    tmp_path: Path, home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "supervisor.toml").write_text("this is not TOML")
    monkeypatch.chdir(tmp_path)
    assert read({}, environ=home).file is None


def test_a_broken_file_is_named(tmp_path: Path, home: dict[str, str]) -> None:
    file = write(tmp_path, "workers = = 3")
    with pytest.raises(UsageError, match=f"{file} is not TOML"):
        read({}, environ=home)


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path, home: dict[str, str]) -> None:
    file = write(tmp_path, 'state = "here"\n')
    assert read({}, environ=home).config(1).state_directory == str(file.parent / "here")


def test_recipes_of_the_user(tmp_path: Path, home: dict[str, str]) -> None:
    write(tmp_path, '[recipes.small]\nsteps = [{ operation = "thumbnail", sizes = [64] }, { operation = "probe" }]\n')
    recipe = read({}, environ=home).config(1).recipes["small"]
    assert [step.operation for step in recipe.steps] == ["thumbnail", "probe"]
    assert recipe.steps[0].parameters == {"sizes": [64]}


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ('[recipes.web]\nsteps = [{ operation = "probe" }]', "'web' is built in"),
        ("[recipes.x]\nsteps = []", "0 steps"),
        ("[recipes.x]\nsteps = [{ sizes = [1] }]", "step 1: operation"),
        ("[recipes.x]\nstep = 3", "exactly one key"),
        ('[recipes."a b"]\nsteps = [{ operation = "probe" }]', "a name is a letter"),
        ("recipes = 3", "tables"),
    ],
)
def test_faulty_recipes(tmp_path: Path, home: dict[str, str], toml: str, expected: str) -> None:
    write(tmp_path, toml)
    with pytest.raises(UsageError, match=expected):
        read({}, environ=home).config(1)


def test_sockets_of_a_deep_state_directory_are_put_elsewhere() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/1"}
    assert socket_directory("/state", environ) == "/state/run"
    deep = "/" + "x" * 100
    short = socket_directory(deep, environ)
    assert short.startswith("/run/user/1/gallery-supervisor-")
    assert len(f"{short}/frontend") <= MAX_IPC_PATH_BYTES
    assert short != socket_directory("/" + "y" * 100, environ)


def test_a_state_directory_that_is_not_utf8_is_refused(home: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        read({"state": "/caf\udce9"}, environ=home).config(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512M", 512 * 1024**2),
        ("1.5G", 3 * 512 * 1024**2),
        ("1GB", 1024**3),
        ("50MB", 50 * 1024**2),
        ("50mb", 50 * 1024**2),
        ("50 MiB", 50 * 1024**2),
        ("3kB", 3 * 1024),
        ("3K", 3 * 1024),
        ("1TB", 1024**4),
        ("512b", 512),
        ("2 MiB", 2 * 1024**2),
        ("1_000", 1000),
        ("100", 100),
        (4096, 4096),
        ("none", None),
    ],
)
def test_sizes(text: object, expected: int | None) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-1", "1X", "0x10", "1e3", "M", "1 2", True, [], float("nan"), "١"])
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30.0), ("5m", 300.0), ("500ms", 0.5), ("2h", 7200.0), ("1d", 86400.0), ("90", 90.0), (1.5, 1.5)],
)
def test_durations(text: object, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-3s", "5 apples", "5M", False])
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_values_for_people() -> None:
    assert [human(n) for n in (0, 999, 61_400_000, 999_999, 512 * 1024**2, 24_000_000_000)] == [
        "0 bytes",
        "999 bytes",
        "59 MB",
        "977 KB",
        "512 MB",
        "22 GB",
    ]
    assert [show_duration(s) for s in (0.35, 12.34, 245, 7800, 200_000)] == [
        "350 ms",
        "12.3 s",
        "4 min 05 s",
        "2 h 10 min",
        "2 d 7 h",
    ]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("0.0.0.0", 80)),
        ("photos.example:8080", ("photos.example", 8080)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse("address", text) == address
    assert parse("address", show_address(*address)) == address


def test_a_secret_is_never_shown(tmp_path: Path, home: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    secret = "correct-horse-battery"
    assert main(["config", "show", "--http-token", secret, "--state", str(tmp_path)]) == 0
    assert main(["config", "show", "--json", "--http-token", secret, "--state", str(tmp_path)]) == 0
    webhook = f"https://hooks.example/{secret}"
    assert main(["config", "show", "--alert-webhook", webhook, "--state", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("(secret)") == 3 and secret not in printed.out + printed.err
    # As the answer to 'config set' and the log word a change.
    assert BY_NAME["alert-webhook"].shown(webhook) == "(secret)" and BY_NAME["alert-webhook"].shown(None) == "none"
