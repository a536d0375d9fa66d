"""Control groups of workers: where they are made, and where not, with the reason; limits written when they are due."""

import os
from pathlib import Path

import pytest

from supervisor.mechanism.memory.cgroup_tree import Group
from supervisor.mechanism.memory.worker_groups import LEAF, WorkerGroups, look_for

MOUNT = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"


def v2(root: Path, membership: str, procs: str, **files: str) -> Path:
    """A tree of version 2 in which we live in `membership`; returns the directory of that group."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::{membership}\n")
    (root / "proc/self/mountinfo").write_text(MOUNT)
    group = root / "sys/fs/cgroup" / membership.strip("/")
    group.mkdir(parents=True)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("cpu memory pids\n")
    for directory in {group, group.parent}:
        (directory / "cgroup.subtree_control").write_text("")
        (directory / "cgroup.procs").write_text("")
    (group / "cgroup.procs").write_text(procs)
    return group


def test_a_group_that_is_ours_alone_is_taken(tmp_path: Path) -> None:
    group = v2(tmp_path, "/system.slice/gallery.service", f"{os.getpid()}\n")
    assert look_for("auto", str(tmp_path)).base == Group(2, str(group), str(tmp_path / "sys/fs/cgroup"))
    assert look_for("off", str(tmp_path)).base is None


def test_a_leaf_of_an_earlier_start_is_not_nested_again(tmp_path: Path) -> None:
    group = v2(tmp_path, f"/system.slice/gallery.service/{LEAF}", f"{os.getpid()}\n")
    found = look_for("auto", str(tmp_path)).base
    assert found is not None and found.path == str(group.parent)


def test_a_group_with_neighbours_is_left_alone_and_they_are_named(tmp_path: Path) -> None:
    v2(tmp_path, "/user.slice/session-1.scope", f"7\n{os.getpid()}\n")
    offer = look_for("auto", str(tmp_path))
    assert offer.base is None and "other processes" in offer.reason and "pid 7" in offer.reason


def test_a_group_that_cannot_be_written_is_not_delegated(tmp_path: Path) -> None:
    group = v2(tmp_path, "/system.slice/gallery.service", f"{os.getpid()}\n")
    (group / "cgroup.subtree_control").unlink()
    offer = look_for("auto", str(tmp_path))
    assert offer.base is None and "Delegate=" in offer.reason


def test_without_any_group_there_is_a_reason(tmp_path: Path) -> None:
    assert look_for("on", str(tmp_path)) == (None, "there is no memory control group")


def test_the_supervisor_moves_to_a_leaf_and_limits_are_written_when_they_are_due(tmp_path: Path) -> None:
    group = v2(tmp_path, "/system.slice/gallery.service", f"{os.getpid()}\n")
    old = group / "gallery-worker-1-0-1"
    old.mkdir()
    groups = WorkerGroups(Group(2, str(group), str(tmp_path / "sys/fs/cgroup")))
    assert (group / LEAF / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory"
    assert not old.exists(), "left by an earlier supervisor"
    groups.enter(0, 1, 4711)
    [made] = group.glob("gallery-worker-*")
    assert (made / "cgroup.procs").read_text() == "4711" and not (made / "memory.max").exists()
    assert not groups.want(0, 1, 200), "the first one reclaims, so it is a chore's"
    groups.apply(0, 1)
    assert (made / "memory.max").read_text() == "200"
    assert groups.want(0, 1, 300) and not groups.want(0, 1, 250)
    groups.apply(0, 1)
    assert (made / "memory.max").read_text() == "250", "the latest, whoever asked first"
    (made / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert groups.oom_kills(0, 1) == 1 and groups.oom_kills(5, 1) == 0


def test_a_tree_that_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="supervisor"):
        (tmp_path / LEAF).write_text("a file where the leaf should be")
        WorkerGroups(Group(2, str(tmp_path), str(tmp_path)))
