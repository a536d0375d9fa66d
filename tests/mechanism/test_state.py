"""The state directory: made private, owned by one, never on a network file system."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import StateDirectoryBusy, StateDirectoryUnusable
from supervisor.mechanism.state import Endpoint, StateDirectory, file_system_type, is_network, make_private_directory

ENDPOINT = Endpoint(frontend="ipc:///x/frontend", events="ipc:///x/events", pid=12, version="0.1.0")

HOLD = """
import sys
from supervisor.mechanism.state import StateDirectory
StateDirectory(sys.argv[1]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_it_is_made_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = StateDirectory(str(tmp_path / "deep" / "state"))
        state.acquire()
    finally:
        os.umask(before)
    assert [mode(p) for p in (state.path, state.run_directory, state.temp_directory)] == [0o700] * 3
    assert mode(state.lock_path) == 0o600
    assert Path(state.lock_path).read_text() == f"{os.getpid()}\n"
    state.release()


def test_a_second_one_is_refused_by_the_pid_of_the_first(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        second = StateDirectory(str(tmp_path))
        assert second.holder() == holder.pid
        with pytest.raises(StateDirectoryBusy, match=rf"pid {holder.pid}.*--state"):
            second.acquire()
        holder.kill()
        holder.wait()
        assert second.holder() is None
        second.acquire()
    assert Path(second.lock_path).read_text() == f"{os.getpid()}\n"
    second.release()
    assert second.holder() is None


def test_the_token_is_made_once(tmp_path: Path) -> None:
    first = StateDirectory(str(tmp_path))
    assert first.token == ""
    first.acquire()
    token = first.token
    assert len(token) == 8
    assert int(token, 16) >= 0
    first.release()
    assert StateDirectory(str(tmp_path)).token == token
    Path(first.token_path).write_text("not a token")
    again = StateDirectory(str(tmp_path))
    again.acquire()
    assert len(again.token) == 8
    again.release()


def test_the_endpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    assert state.read_endpoint() is None
    state.acquire()
    state.write_endpoint(ENDPOINT)
    assert StateDirectory(str(tmp_path)).read_endpoint() == ENDPOINT
    assert mode(state.endpoint_path) == 0o600
    assert not os.path.exists(f"{state.endpoint_path}.new")
    Path(state.endpoint_path).write_bytes(b'{"frontend":')
    assert state.read_endpoint() is None
    state.release()
    assert not os.path.exists(state.endpoint_path)
    state.remove_endpoint()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "lustre", "afs", "fuse.rclone"])
def test_a_network_file_system_is_refused_with_its_name(tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "20 1 0:1 / / rw - ext4 /dev/a rw\n"
        f"21 20 0:2 / {tmp_path}/a\\040share rw,relatime shared:1 - {kind} server:/x rw\n"
        f"22 21 0:3 / {tmp_path}/a\\040share/local rw - xfs /dev/b rw\n"
    )
    with pytest.raises(StateDirectoryUnusable, match=rf"network file system \({kind}\).*--state"):
        StateDirectory(str(tmp_path / "a share" / "state"), str(mounts)).acquire()
    assert not (tmp_path / "a share").exists(), "nothing was made"
    for local in (tmp_path / "a share" / "local" / "state", tmp_path / "a share too"):
        state = StateDirectory(str(local), str(mounts))
        state.acquire()
        state.release()


def test_a_later_mount_hides_an_earlier_one(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 1 0:1 / / rw - nfs s:/ rw\n2 1 0:2 / / rw - ext4 /dev/a rw\nnonsense\n")
    assert file_system_type("/any", str(mounts)) == "ext4"
    assert file_system_type("/any", str(tmp_path / "missing")) is None


def test_local_file_systems_are_not_taken_for_network_ones() -> None:
    assert not [
        kind for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuse.mergerfs") if is_network(kind)
    ]
    assert file_system_type("/proc") == "proc" or not os.path.exists("/proc/self/mountinfo")


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirectoryUnusable, match=r"file.*not a directory"):
        StateDirectory(str(tmp_path / "file")).acquire()
    with pytest.raises(StateDirectoryUnusable, match="file/state: is not a directory"):
        StateDirectory(str(tmp_path / "file" / "state")).acquire()


def test_a_directory_for_sockets_must_be_ours_alone(tmp_path: Path) -> None:
    make_private_directory(str(tmp_path / "sockets"))
    make_private_directory(str(tmp_path / "sockets"))
    assert mode(tmp_path / "sockets") == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "sockets")
    for name in ("open", "link"):
        with pytest.raises(StateDirectoryUnusable, match="not a directory of ours"):
            make_private_directory(str(tmp_path / name))
