"""The temp root where no supervisor runs: the same figures, the same reaper."""

import os
from pathlib import Path

import pytest

from protocol.errors import TempRootUnusable
from supervisor.mechanism.temp import reap_offline, stats_offline
from tests.mechanism.temp_bed import OURS, SETTINGS, fill, name_of


def test_without_a_supervisor_the_same_is_told_and_done(tmp_path: Path) -> None:
    root = tmp_path / "root"
    fill(root / name_of(), files=4)
    root.chmod(0o700)
    usage = stats_offline(str(root), OURS, private=True)
    assert (usage.files, usage.bytes, usage.by_source) == (4, 4 * 4096, {"thumbnail": 4 * 4096})
    assert usage.leases == []
    told = reap_offline(str(root), OURS, SETTINGS, private=True, dry_run=True)
    assert (told.files, told.dry_run, len(os.listdir(root))) == (4, True, 1)
    done = reap_offline(str(root), OURS, SETTINGS, private=True, dry_run=False)
    assert (done.files, done.bytes, os.listdir(root)) == (4, 4 * 4096, [])
    with pytest.raises(TempRootUnusable, match="No such file"):
        stats_offline(str(tmp_path / "nowhere"), OURS, private=True)
