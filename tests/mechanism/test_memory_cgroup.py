"""Control groups: recorded trees of several kinds of hosts, and a real group with a real OOM kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.mechanism.memory.budget import BudgetFinder, find_budget
from supervisor.mechanism.memory.cgroup import open_cgroup, open_group
from supervisor.mechanism.memory.cgroup_tree import Group, find_group
from supervisor.mechanism.memory.cores import quota_cores, usable_cores
from supervisor.mechanism.memory.pressure_stall import PressureStall

MIB = 1 << 20
UNLIMITED = str(0x7FFFFFFFFFFFF000)
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "33 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
)
V2_MOUNT = "41 31 0:38 {root} /sys/fs/cgroup{below} rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"


class Tree:
    """A directory that stands for "/"."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.write("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 10 kB\nMemAvailable: 4194304 kB\nCached: 20 kB\n")

    def write(self, path: str, text: str) -> None:
        target = Path(self.root) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def v1(self, path: str, limit: str = UNLIMITED, usage: int = 0, stat: str = "") -> None:
        group = f"sys/fs/cgroup/memory{path}"
        self.write(f"{group}/memory.limit_in_bytes", limit + "\n")
        self.write(f"{group}/memory.usage_in_bytes", f"{usage}\n")
        self.write(f"{group}/memory.stat", stat or f"cache 0\nhierarchical_memory_limit {UNLIMITED}\n")

    def v2(self, path: str, limit: str = "max", high: str = "max", usage: int = 0, stat: str = "anon 0\n") -> None:
        group = f"sys/fs/cgroup{path}"
        self.write(f"{group}/memory.max", limit + "\n")
        self.write(f"{group}/memory.high", high + "\n")
        self.write(f"{group}/memory.current", f"{usage}\n")
        self.write(f"{group}/memory.stat", stat)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def on_v1(tree: Tree, membership: str, mount_root: str = "/") -> None:
    tree.write("proc/self/cgroup", f"5:cpu,cpuacct:{membership}\n4:memory:{membership}\n0::/\n")
    tree.write("proc/self/mountinfo", V1_MOUNTS.format(root=mount_root))


def on_v2(tree: Tree, membership: str, mount_root: str = "/") -> None:
    tree.write("proc/self/cgroup", f"0::{membership}\n")
    tree.write("proc/self/mountinfo", V2_MOUNT.format(root=mount_root, below=""))
    tree.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")


def test_v1_the_smallest_limit_on_the_way_up_binds(tree: Tree) -> None:
    on_v1(tree, "/jobs/a/b")
    tree.v1("")
    tree.v1("/jobs", str(600 * MIB))
    tree.v1("/jobs/a", str(400 * MIB))
    tree.v1("/jobs/a/b", str(500 * MIB), usage=10 * MIB)
    budget = find_budget(None, 0, tree.root)
    assert (budget.bytes, budget.source) == (400 * MIB, "cgroup v1")
    assert budget.limit_path == f"{tree.root}/sys/fs/cgroup/memory/jobs/a"
    assert budget.cgroup_used_bytes == 10 * MIB


def test_v1_a_container_sees_only_its_part_of_the_tree_but_the_kernel_tells_the_limit_above(tree: Tree) -> None:
    on_v1(tree, "/docker/abc/inner", mount_root="/docker/abc")
    stat = f"total_cache 0\nhierarchical_memory_limit {256 * MIB}\n"
    tree.v1("", str(300 * MIB))
    tree.v1("/inner", usage=5 * MIB, stat=stat)
    budget = find_budget(None, 0, tree.root)
    assert budget.bytes == 256 * MIB
    assert budget.limit_path == f"above {tree.root}/sys/fs/cgroup/memory"


def test_v1_working_set_leaves_out_cache_that_can_be_dropped_and_keeps_what_is_dirty(tree: Tree) -> None:
    on_v1(tree, "/")
    stat = (
        f"active_file 1\ninactive_file 1\ntotal_active_file {30 * MIB}\ntotal_inactive_file {20 * MIB}\n"
        f"total_dirty {4 * MIB}\ntotal_writeback {1 * MIB}\ntotal_swap {7 * MIB}\n"
    )
    tree.v1("", str(300 * MIB), usage=200 * MIB, stat=stat)
    group = open_cgroup(tree.root)
    assert group is not None
    look = group.look()
    assert look is not None
    assert look.working_set_bytes == group.working_set_bytes() == 155 * MIB
    assert look.used_bytes == 162 * MIB


def test_v2_high_and_max_bind_at_every_level(tree: Tree) -> None:
    on_v2(tree, "/user.slice/app")
    tree.v2("/user.slice", limit=str(900 * MIB), high=str(300 * MIB), usage=40 * MIB)
    tree.v2("/user.slice/app", limit=str(800 * MIB), usage=40 * MIB)
    budget = find_budget(None, 0, tree.root)
    assert (budget.bytes, budget.source) == (300 * MIB, "cgroup v2")
    assert budget.limit_path == f"{tree.root}/sys/fs/cgroup/user.slice"


def test_v2_what_neighbours_hold_below_a_shared_limit_is_not_ours(tree: Tree) -> None:
    on_v2(tree, "/pod/us")
    tree.v2("/pod", limit=str(500 * MIB), usage=200 * MIB)
    tree.v2("/pod/us", limit=str(400 * MIB), usage=50 * MIB)
    budget = find_budget(None, 0, tree.root)
    assert budget.bytes == 350 * MIB
    assert "its other members leave" in budget.note
    assert budget.cgroup_used_bytes == 50 * MIB


def test_v2_working_set(tree: Tree) -> None:
    on_v2(tree, "/")
    stat = (
        f"anon 5\nfile 5\nfile_dirty {3 * MIB}\nfile_writeback {2 * MIB}\nactive_file {20 * MIB}\n"
        f"inactive_file {40 * MIB}\nslab_reclaimable {15 * MIB}\n"
    )
    tree.v2("", limit=str(300 * MIB), usage=200 * MIB, stat=stat)
    tree.write("sys/fs/cgroup/memory.swap.current", f"{8 * MIB}\n")
    tree.write("sys/fs/cgroup/memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 3\noom_group_kill 0\n")
    group = open_cgroup(tree.root)
    assert group is not None
    look = group.look()
    assert look is not None
    assert (look.working_set_bytes, look.used_bytes) == (130 * MIB, 138 * MIB)
    assert group.oom_kills() == 3


def test_v2_a_group_without_the_controller_is_counted_by_the_one_above(tree: Tree) -> None:
    on_v2(tree, "/svc/leaf")
    tree.v2("/svc", limit=str(200 * MIB), usage=30 * MIB)
    tree.write("sys/fs/cgroup/svc/leaf/cgroup.procs", "1\n")
    budget = find_budget(None, 0, tree.root)
    assert (budget.bytes, budget.cgroup_used_bytes) == (200 * MIB, 30 * MIB)


def test_hybrid_the_controller_is_where_it_is_and_not_in_the_empty_unified_tree(tree: Tree) -> None:
    tree.write("proc/self/cgroup", "4:memory:/job\n0::/elsewhere\n")
    mounts = V2_MOUNT.format(root="/", below="/unified") + V1_MOUNTS.format(root="/")
    tree.write("proc/self/mountinfo", mounts)
    tree.write("sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n")
    tree.v1("/job", str(128 * MIB))
    group = find_group("memory", tree.root)
    assert group == Group(1, f"{tree.root}/sys/fs/cgroup/memory/job", f"{tree.root}/sys/fs/cgroup/memory")


def test_a_mount_from_outside_our_namespace_is_searched_for_our_group(tree: Tree) -> None:
    on_v2(tree, "/", mount_root="/../..")
    tree.v2("/kubepods", limit=str(900 * MIB))
    tree.v2("/kubepods/other", limit=str(10 * MIB))
    tree.write("sys/fs/cgroup/kubepods/other/cgroup.procs", "1\n")
    tree.v2("/kubepods/pod-with us", limit=str(100 * MIB))
    tree.write("sys/fs/cgroup/kubepods/pod-with us/cgroup.procs", f"1\n{os.getpid()}\n")
    assert find_budget(None, 0, tree.root).bytes == 100 * MIB


def test_of_two_mounts_the_one_that_shows_more_of_the_tree_counts(tree: Tree) -> None:
    tree.write("proc/self/cgroup", "4:memory:/pod/us\n")
    tree.write(
        "proc/self/mountinfo",
        "35 31 0:32 /pod /part rw - cgroup cgroup rw,memory\n36 31 0:32 / /whole rw - cgroup cgroup rw,memory\n",
    )
    tree.write("part/us/memory.usage_in_bytes", "1\n")
    tree.write("whole/pod/us/memory.usage_in_bytes", "1\n")
    assert find_group("memory", tree.root) == Group(1, f"{tree.root}/whole/pod/us", f"{tree.root}/whole")


def test_a_mount_point_with_a_blank(tree: Tree) -> None:
    tree.write("proc/self/cgroup", "4:memory:/job\n")
    tree.write("proc/self/mountinfo", "35 31 0:32 / /my\\040groups rw - cgroup cgroup rw,memory\n")
    tree.write("my groups/job/memory.usage_in_bytes", "1\n")
    group = find_group("memory", tree.root)
    assert group is not None
    assert group.path == f"{tree.root}/my groups/job"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo"), [("", ""), ("garbage\n", "garbage\n"), ("4:memory:/a\n", "1 2 3 - cgroup\n")]
)
def test_without_a_group_the_machine_is_the_budget(tree: Tree, cgroup: str, mountinfo: str) -> None:
    tree.write("proc/self/cgroup", cgroup)
    tree.write("proc/self/mountinfo", mountinfo)
    budget = find_budget(None, 50 * MIB, tree.root)
    assert (budget.source, budget.limit_path, budget.cgroup_used_bytes) == ("machine", None, None)
    assert budget.bytes == 50 * MIB + 4096 * MIB - 100 * MIB


def test_the_machine_is_never_more_than_physical_memory(tree: Tree) -> None:
    assert find_budget(None, 7000 * MIB, tree.root).bytes == 8192 * MIB


def test_a_limit_above_physical_memory_is_none(tree: Tree) -> None:
    on_v1(tree, "/")
    tree.v1("", str(9000 * MIB))
    assert find_budget(None, 0, tree.root).source == "machine"


def test_the_smaller_of_option_and_limit_counts(tree: Tree) -> None:
    on_v1(tree, "/")
    tree.v1("", str(300 * MIB), usage=9 * MIB)
    smaller = find_budget(100 * MIB, 0, tree.root)
    assert (smaller.bytes, smaller.source, smaller.cgroup_used_bytes, smaller.note) == (100 * MIB, "--memory", None, "")
    larger = find_budget(500 * MIB, 0, tree.root)
    assert (larger.bytes, larger.source, larger.cgroup_used_bytes) == (300 * MIB, "cgroup v1", 9 * MIB)
    assert larger.note.startswith(f"--memory asks for {500 * MIB} bytes, but ")


def test_an_option_above_physical_memory_is_cut_and_says_so(tree: Tree) -> None:
    budget = find_budget(9000 * MIB, 0, tree.root)
    assert budget.bytes == 8192 * MIB
    assert "but the machine has" in budget.note


def test_a_limit_that_is_changed_is_followed(tree: Tree) -> None:
    on_v1(tree, "/")
    tree.v1("", str(300 * MIB))
    finder = BudgetFinder(root=tree.root)
    assert finder.find(0).bytes == 300 * MIB
    tree.v1("", str(200 * MIB))
    assert finder.find(0).bytes == 200 * MIB
    tree.v1("", UNLIMITED)
    assert finder.find(0).source == "machine"
    finder.close()
    finder.close()


def test_oom_kills_of_the_machine_where_the_group_does_not_count(tree: Tree) -> None:
    on_v1(tree, "/")
    tree.v1("")
    tree.write("proc/vmstat", "nr_free_pages 1\noom_kill 4\n")
    finder = BudgetFinder(root=tree.root)
    assert finder.oom_kills() == 4
    tree.write("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert BudgetFinder(root=tree.root).oom_kills() == 2


def test_quota_of_v1_is_the_smallest_on_the_way_up(tree: Tree) -> None:
    on_v1(tree, "/a/b")
    for path, quota in (("", -1), ("/a", 50_000), ("/a/b", 250_000)):
        tree.write(f"sys/fs/cgroup/cpu,cpuacct{path}/cpu.cfs_quota_us", f"{quota}\n")
        tree.write(f"sys/fs/cgroup/cpu,cpuacct{path}/cpu.cfs_period_us", "100000\n")
    assert quota_cores(tree.root) == 0.5
    assert usable_cores(tree.root) == 1


def test_quota_of_v2(tree: Tree) -> None:
    on_v2(tree, "/a")
    tree.write("sys/fs/cgroup/a/cpu.max", "max 100000\n")
    assert quota_cores(tree.root) is None
    assert usable_cores(tree.root) == len(os.sched_getaffinity(0))
    tree.write("sys/fs/cgroup/a/cpu.max", "150000 100000\n")
    assert quota_cores(tree.root) == 1.5
    assert usable_cores(tree.root) == 1


def test_pressure_of_our_group_goes_before_that_of_the_machine(tree: Tree) -> None:
    tree.write("proc/pressure/memory", "some avg10=1.00 avg60=0.00 total=0\nfull avg10=0.00 avg60=0.00 total=0\n")
    assert PressureStall(tree.root).look() == (0.01, 0.0)
    on_v2(tree, "/a")
    tree.write("sys/fs/cgroup/a/memory.pressure", "some avg10=12.50 avg60=0 total=1\nfull avg10=2.00 avg60=0 total=1\n")
    assert PressureStall(tree.root).look() == (0.125, 0.02)


def test_no_pressure_information(tree: Tree) -> None:
    stall = PressureStall(tree.root)
    assert stall.source is None
    assert stall.look() is None


# ---- a real group --------------------------------------------------------------------------------

LIMIT_BYTES = 64 * MIB
CHILD = """
import json, sys
from supervisor.mechanism.memory import find_budget, open_cgroup
sys.stdin.readline()
held = bytearray(b"x") * (20 << 20)
budget = find_budget(None, 0)
print(json.dumps([budget.bytes, budget.source, budget.limit_path, budget.cgroup_used_bytes]), flush=True)
sys.stdin.readline()
held += bytearray(b"x") * (200 << 20)
"""


@pytest.fixture
def real_group() -> Iterator[Group]:
    """A group of 64 MiB below our own; removed afterwards whatever happened."""
    own = find_group("memory")
    if own is None:
        pytest.skip("no memory control group here")
    path = f"{own.path}/gallery-supervisor-test-{os.getpid()}"
    try:
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"no group can be made below {own.path}: {error.strerror}")
    try:
        limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        names = limits if own.version == 1 else ("memory.max",)
        if not os.access(f"{path}/{names[0]}", os.W_OK):
            pytest.skip(f"{own.path} does not hand the memory controller down ({names[0]} is missing or read-only)")
        for name in names:
            if os.path.exists(f"{path}/{name}"):
                Path(path, name).write_text(str(LIMIT_BYTES))
        if own.version == 2 and os.path.exists(f"{path}/memory.swap.max"):
            Path(path, "memory.swap.max").write_text("0")
        yield Group(own.version, path, own.top)
    finally:
        # Its members were waited for by the test: the group is empty.
        os.rmdir(path)


def test_a_real_limit_is_found_from_inside_and_an_oom_kill_is_counted(real_group: Group) -> None:
    watcher = open_group(real_group)
    assert watcher is not None
    before = watcher.oom_kills()
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdin is not None and child.stdout is not None
            Path(real_group.path, "cgroup.procs").write_text(str(child.pid))
            child.stdin.write(b"\n")
            child.stdin.flush()
            size, source, path, used = json.loads(child.stdout.readline())
            seen_from_outside = watcher.look()
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert child.wait(30) == -signal.SIGKILL
        finally:
            child.kill()
    after = watcher.oom_kills()
    watcher.close()
    assert (size, source, path) == (LIMIT_BYTES, f"cgroup v{real_group.version}", real_group.path)
    assert 20 * MIB <= used < LIMIT_BYTES
    assert seen_from_outside is not None
    assert seen_from_outside.limit_bytes == LIMIT_BYTES
    assert abs(seen_from_outside.used_bytes - used) < 8 * MIB
    if before is None or after is None:
        pytest.skip("this kernel does not count OOM kills by group")
    assert after == before + 1


def test_a_group_that_is_gone_has_no_figures(real_group: Group) -> None:
    path = f"{real_group.path}/inner"
    os.mkdir(path)
    group = open_group(Group(real_group.version, path, real_group.top))
    os.rmdir(path)
    if group is None:
        pytest.skip("the memory controller is not handed down two levels")
    assert group.look() is None
    assert group.working_set_bytes() is None
    group.close()
