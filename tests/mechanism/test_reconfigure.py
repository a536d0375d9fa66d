"""Settings read anew while the supervisor runs: all or nothing, the file written in place."""

from pathlib import Path

import pytest

from protocol import messages as m
from supervisor.config import read
from supervisor.mechanism.reconfigure import Reconfigurer
from supervisor.mechanism.settings_file import with_value, write_settings
from supervisor.policy.live import SettingsChanged


class Bench:
    """A settings file, and a supervisor's settings that were read from it."""

    def __init__(self, directory: Path, text: str = "") -> None:
        self.file = directory / "supervisor.toml"
        self.file.write_text(text)
        self.flags = {"config": str(self.file), "state": str(directory / "state")}
        config = read(self.flags, environ={}).config(4)
        self.reconfigurer = Reconfigurer(config, self.flags, {})

    def change(self, save: bool = False, **changes: str) -> SettingsChanged:
        """Asks for changes, `__` for the dot."""
        named = {key.replace("__", "."): value for key, value in changes.items()}
        return self.reconfigurer.change(b"me", m.ChangeSettings(id=1, changes=named, save=save))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With a few settings of its own."""
    return Bench(tmp_path, "item_timeout = '30s'\n[watch]\ncritical_share = 0.85  # mine\n")


def test_a_change_is_told_with_old_and_new_and_is_in_force(bench: Bench) -> None:
    found = bench.change(watch__critical_share="0.87", memory="1G", nice="5")
    assert [(one.key, one.old, one.new, one.takes_effect) for one in found.changed] == [
        ("memory", "none", "1.0 GB", "now"),
        ("nice", "10", "5", "new workers"),
        ("watch.critical_share", "0.85", "0.87", "now"),
    ]
    assert found.settings is not None
    assert found.settings.watch.critical_share == 0.87
    assert (bench.reconfigurer.config.memory_bytes, bench.reconfigurer.config.nice) == (1 << 30, 5)
    assert bench.change(watch__critical_share="0.87").changed == [], "it is so already"


def test_all_faults_are_told_and_nothing_is_taken(bench: Bench) -> None:
    found = bench.change(watch__critical_share="0.97", item_timeout="soon", memory="1G")
    assert found.settings is None
    assert "config set item_timeout" in found.faults
    assert "critical_share" in found.faults, found.faults
    assert bench.reconfigurer.config.memory_bytes is None
    assert "there is no setting 'wacth.x'" in bench.change(wacth__x="1").faults


def test_what_needs_a_restart_is_refused_by_name(bench: Bench) -> None:
    found = bench.change(workers="8", sandbox="off")
    assert found.settings is None
    assert found.faults.startswith("workers, sandbox: cannot change while the supervisor runs")


def test_the_file_read_anew_counts_and_what_was_set_stays_above_it(bench: Bench) -> None:
    bench.change(nice="3")
    bench.file.write_text(
        "item_timeout = '45s'\nnice = 7\nworkers = 2\n[recipes.mine]\nsteps = [{ operation = 'noop' }]\n"
    )
    found = bench.change()
    assert [(one.key, one.old, one.new, one.takes_effect) for one in found.changed] == [
        ("workers", "none", "2", "restart"),
        ("item_timeout", "30.0 s", "45.0 s", "now"),
        ("watch.critical_share", "0.85", "0.9", "now"),
        ("recipes.mine", "none", "changed", "restart"),
    ]
    config = bench.reconfigurer.config
    assert (config.item_timeout_seconds, config.nice, config.workers) == (45.0, 3, 4)
    assert "mine" not in config.recipes
    assert [one.key for one in bench.change().changed] == ["workers", "recipes.mine"], "told until it is true"


def test_saved_changes_are_written_in_place(bench: Bench) -> None:
    found = bench.change(save=True, watch__critical_share="0.88", workers="2", reaper__sweep_seconds="90s")
    assert found.saved_to == str(bench.file)
    assert bench.file.read_text() == (
        "item_timeout = '30s'\nworkers = 2\n[watch]\ncritical_share = 0.88 # mine\n"
        '\n[reaper]\nsweep_seconds = "90s"\n'
    )
    values = read(bench.flags, environ={}).values
    assert (values["workers"], values["watch-critical_share".replace("_", "-")]) == (2, 0.88)
    assert [one.takes_effect for one in found.changed if one.key == "workers"] == ["restart"]
    bench.file.write_text("broken [")
    assert "is not TOML" in bench.change().faults


def test_a_file_is_made_where_none_is(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "supervisor.toml"
    write_settings(str(path), {"nice": "4", "cache": "no"})
    assert path.read_text() == 'nice = 4\ncache = "no"\n'
    assert with_value("[watch]\na = 1\n\n[temp]\n", "watch", "b", "2") == "[watch]\na = 1\nb = 2\n\n[temp]\n"
