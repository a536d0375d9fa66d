"""The reaper against what an attacker, an accident or a neighbour may have put into the temp root."""

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import TempRootUnusable
from protocol.temp_name import TempName, host, labelled, parse, start_ticks, trash_name
from supervisor.mechanism.deleting.tree import Tally, delete
from supervisor.mechanism.temp import TempRoot
from supervisor.mechanism.temp.directory import Changed, lock_alone, put_into_trash
from tests.mechanism.temp_bed import OURS, SETTINGS, THEIRS, Bed, fill, hold, name_of

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path / "root")
    yield bed
    bed.root.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must be there, unchanged, after everything."""
    directory = tmp_path / "precious"
    directory.mkdir()
    (directory / "photo").write_bytes(b"irreplaceable")
    return directory


def unharmed(outside: Path) -> bool:
    return (outside / "photo").read_bytes() == b"irreplaceable" and outside.stat().st_mode & 0o777 == 0o755


# ---- names ---------------------------------------------------------------------------------------


def test_a_name_tells_who_made_it_and_nothing_else_is_taken_for_one() -> None:
    path = labelled("/somewhere/gs-0badcafe-12345678-3.17")
    label = parse(os.path.basename(path))
    assert label == TempName(
        token=OURS,
        run="12345678",
        place="3.17",
        pid=os.getpid(),
        start_ticks=start_ticks(os.getpid()) or 0,
        host=host(),
    )
    assert label.text() == os.path.basename(path)
    assert parse(trash_name(OURS, "12345678", 4)) is not None
    for odd in ("tmp123", "gs-0badcafe", "gs-0badcafe-12345678-3.17", "gs-0badcafe-12345678-../x.1-1-1-0", "gs-x"):
        assert parse(odd) is None


def test_the_start_of_a_process_is_found_behind_any_name_it_gives_itself(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", odd)
    process = subprocess.Popen([str(odd), "60"])
    try:
        ticks = start_ticks(process.pid)
        mine = start_ticks(os.getpid())
        assert ticks is not None and mine is not None and ticks >= mine
    finally:
        process.kill()
        process.wait()
    assert start_ticks(process.pid) is None


# ---- which directory may be a root ---------------------------------------------------------------


def test_dangerous_roots_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "people" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "link").symlink_to("/")
    (tmp_path / "file").write_text("")
    own_home = pwd.getpwuid(os.geteuid()).pw_dir
    for path, why in [
        ("/", "root of the file system"),
        (str(tmp_path / "link"), "root of the file system"),
        (str(home), "home directory"),
        (own_home, "home"),
        (str(home.parent), "holds the home"),
        (str(tmp_path / "file"), "not a directory"),
        ("/etc", "directory of the system"),
        ("/proc/self", "directory of the system"),
    ]:
        with pytest.raises(TempRootUnusable, match=rf"{why}.*--temp"):
            TempRoot(path, OURS, private=False).close()


def test_a_root_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(TempRootUnusable, match="others may write to it"):
        TempRoot(str(root), OURS, private=False)
    root.chmod(0o1777)
    TempRoot(str(root), OURS, private=False).close()


@pytest.mark.skipif(not AS_ROOT, reason="only root can give a directory away")
def test_a_root_of_another_user_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    root.mkdir()
    os.chown(root, 12345, -1)
    with pytest.raises(TempRootUnusable, match="belongs to the user with uid 12345"):
        TempRoot(str(root), OURS, private=False)


def test_a_root_is_made_for_us_alone(tmp_path: Path) -> None:
    TempRoot(str(tmp_path / "a" / "b"), OURS, private=True).close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


# ---- who is stale --------------------------------------------------------------------------------


def test_a_dead_workers_directory_goes_with_all_its_bytes_counted(bed: Bed) -> None:
    name = name_of()
    fill(bed.path / name, files=5)
    report = bed.sweep()
    assert bed.names() == []
    assert (report.files, report.bytes) == (5, 5 * 4096)
    assert report.reaped[0].path.endswith(name) and report.reaped[0].reason == "its worker is gone"
    assert (bed.reaper.reaped_files, bed.reaper.reaped_bytes) == (5, 5 * 4096)


def test_a_dry_run_tells_the_same_and_changes_nothing(bed: Bed) -> None:
    fill(bed.path / name_of(), files=5)
    before = bed.names()
    told = bed.sweep(dry_run=True)
    assert bed.names() == before
    assert told.dry_run
    assert [(each.path, each.files, each.bytes) for each in told.reaped] == [
        (each.path, each.files, each.bytes) for each in bed.sweep().reaped
    ]


def test_a_live_worker_keeps_its_directory_even_before_it_holds_the_lock(bed: Bed) -> None:
    mine = name_of(pid=os.getpid(), start=start_ticks(os.getpid()))
    fill(bed.path / mine)
    bed.sweep(pressed=True)
    assert bed.names() == [mine]


def test_a_pid_that_was_given_again_does_not_keep_a_dead_workers_directory(bed: Bed) -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    fill(bed.path / name_of(pid=os.getpid(), start=ticks - 1))
    bed.sweep()
    assert bed.names() == []


def test_after_a_boot_pids_say_nothing_and_the_lock_and_the_age_decide(bed: Bed) -> None:
    before_boot = name_of(pid=os.getpid(), start=start_ticks(os.getpid()), on="0123456789ab")
    held = name_of("0.2", on="0123456789ab")
    for name in (before_boot, held):
        (bed.path / name).mkdir()
    lock = hold(bed.path / held)
    bed.sweep()
    assert len(bed.names()) == 2, "too young: in another pid namespace its maker may be about to lock it"
    bed.settings = bed.reaper.settings = type(SETTINGS)(grace_seconds=0.0)
    bed.sweep()
    assert bed.names() == [held]
    os.close(lock)
    bed.sweep()
    assert bed.names() == []


def test_a_lock_of_a_stranger_is_honoured(bed: Bed) -> None:
    """systemd-tmpfiles takes LOCK_EX | LOCK_NB on a directory before it cleans it, and skips one that is held."""
    name = name_of()
    fill(bed.path / name)
    lock = hold(bed.path / name, fcntl.LOCK_EX)
    assert bed.sweep().reaped == []
    os.close(lock)
    assert len(bed.sweep().reaped) == 1


def test_a_directory_that_is_being_deleted_is_locked_against_strangers(bed: Bed) -> None:
    name = name_of()
    fill(bed.path / name)
    begun = bed.reaper.trash(name, lock_alone(name, bed.root.fd))
    assert begun is not None
    trash, _, job = begun
    next(job)
    with pytest.raises(BlockingIOError):
        hold(bed.path / trash, fcntl.LOCK_EX)
    assert bed.sweep().reaped == [], "not even ourselves twice"
    for _ in job:
        pass
    assert bed.names() == []


def test_several_supervisors_share_a_root_and_leave_each_other_alone(tmp_path: Path) -> None:
    ours, theirs = (Bed(tmp_path / "root", token, private=False) for token in (OURS, THEIRS))
    for token in (OURS, THEIRS):
        fill(ours.path / name_of(token=token))
        (ours.path / trash_name(token, "12345678", 1)).mkdir()
    (ours.path / "somebody's").mkdir()
    (ours.path / "notes.txt").write_text("mine")
    ours.sweep()
    left = ours.names()
    assert [name for name in left if OURS in name] == []
    assert len([name for name in left if THEIRS in name]) == 2
    theirs.sweep()
    assert ours.names() == ["notes.txt", "somebody's"]
    for bed in (ours, theirs):
        bed.root.close()


def test_what_another_supervisor_abandoned_goes_by_age(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "root", private=False, abandoned_seconds=0.0)
    fill(bed.path / name_of(token=THEIRS))
    held = name_of("0.9", token=THEIRS)
    (bed.path / held).mkdir()
    lock = hold(bed.path / held)
    bed.sweep()
    assert bed.names() == [held]
    os.close(lock)
    bed.root.close()


def test_strays_go_by_age_from_a_root_of_our_own_alone(tmp_path: Path) -> None:
    old = 1_000_000_000
    for private, left in ((False, ["old"]), (True, [])):
        bed = Bed(tmp_path / f"root-{private}", private=private, stray_seconds=0.0)
        (bed.path / "old").write_text("x")
        os.utime(bed.path / "old", (old, old))
        bed.sweep()
        assert bed.names() == left
        bed.root.close()


# ---- attacks -------------------------------------------------------------------------------------


def test_links_and_hard_links_cost_their_targets_nothing(bed: Bed, outside: Path) -> None:
    directory = fill(bed.path / name_of())
    (directory / "to a directory").symlink_to(outside)
    (directory / "to etc").symlink_to("/etc")
    (directory / "thumbnail" / "to a file").symlink_to(outside / "photo")
    (directory / "hard").hardlink_to(outside / "photo")
    own = [path.lstat() for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    alone = sum(found.st_blocks * 512 for found in own if found.st_nlink == 1)
    report = bed.sweep()
    assert bed.names() == []
    assert unharmed(outside) and os.path.isdir("/etc")
    assert report.bytes == alone, "a file with another name frees nothing"


def test_a_link_in_the_place_of_a_workers_directory_is_unlinked_itself(bed: Bed, outside: Path) -> None:
    (bed.path / name_of()).symlink_to(outside)
    (bed.path / name_of("0.2")).symlink_to("/etc")
    (bed.path / name_of("0.3")).write_text("a file")
    os.mkfifo(bed.path / name_of("0.4"))
    bed.sweep()
    assert bed.names() == []
    assert unharmed(outside)


def test_a_directory_swapped_between_look_and_rename_is_left_alone(bed: Bed, outside: Path) -> None:
    name = name_of()
    fill(bed.path / name)
    lock = lock_alone(name, bed.root.fd)
    os.rename(bed.path / name, bed.path / "aside")
    (bed.path / name).symlink_to(outside)
    with pytest.raises(Changed):
        put_into_trash(bed.root, name, lock)
    os.unlink(bed.path / name)
    os.rename(outside, bed.path / name)
    with pytest.raises(Changed):
        put_into_trash(bed.root, name, lock)
    os.close(lock)
    assert (bed.path / name / "photo").read_bytes() == b"irreplaceable"


def test_swapping_links_for_directories_while_they_are_deleted_leads_nowhere(bed: Bed, outside: Path) -> None:
    """A thread replaces directories by links to what is precious as fast as it can, in the trash itself."""
    stop = threading.Event()
    swapped: list[str] = []

    def swap() -> None:
        while not stop.is_set():
            for top in list(bed.path.iterdir()):
                try:
                    entries = list(os.scandir(top))
                except OSError:
                    continue
                for entry in entries:
                    try:
                        if entry.is_symlink() or not entry.is_dir() or entry.name.endswith(".away"):
                            continue
                        os.rename(entry.path, f"{entry.path}.away")
                        os.symlink(outside, entry.path)
                        swapped.append(entry.name)
                    except OSError:
                        pass  # deleted meanwhile

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for round_ in range(10):
            made = bed.path.parent / f"made {round_}"
            for number in range(20):
                (made / f"d{number}" / "e").mkdir(parents=True)
                (made / f"d{number}" / "f").write_text("x")
            made.rename(bed.path / name_of(f"0.{round_ + 1}", pid=4_000_000, start=1))
            bed.sweep()
    finally:
        stop.set()
        attacker.join()
    assert swapped, "the attacker was never fast enough: nothing was tried"
    assert unharmed(outside)
    bed.sweep()
    bed.sweep()
    assert bed.names() == []


def test_a_deep_tree_and_one_full_of_awkward_names_go(bed: Bed) -> None:
    directory = bed.path / name_of()
    directory.mkdir()
    at = os.open(directory, os.O_RDONLY)
    for _ in range(1500):  # deeper than any path can name
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    for name in (".flat-1", ".flat-2", b"\xff\xfe", "new\nline", "-rf", " "):
        os.mkdir(os.path.join(os.fsencode(directory), os.fsencode(name)))
        Path(os.fsdecode(os.path.join(os.fsencode(directory), os.fsencode(name))), "in").write_text("x")
    (directory / ".flat-3").write_text("a file of that name")
    bed.sweep()
    assert (bed.names(), bed.complaints) == ([], [])


def test_directories_that_their_owner_closed_go() -> None:
    """Modes do not hold root up, so the reaper is an ordinary user here."""
    with tempfile.TemporaryDirectory(prefix="gs-") as place:
        os.chmod(place, 0o755)
        root = Path(place, "root")
        directory = fill(root / name_of())
        (directory / "thumbnail" / "deep").chmod(0)
        (directory / "thumbnail").chmod(0o500)
        directory.chmod(0)
        if AS_ROOT:
            for path in (root, *root.rglob("*")):
                os.chown(path, 12345, 12345)
        child = os.fork()
        if child == 0:
            try:
                if AS_ROOT:
                    os.setgid(12345)
                    os.setuid(12345)
                bed = Bed(root)
                bed.sweep()
                os._exit(0 if (bed.names(), bed.complaints) == ([], []) else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount")
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("where", ["", "in", "in/deeper"])
def test_mounts_are_not_crossed(bed: Bed, outside: Path, kind: str, where: str) -> None:
    name = name_of()
    point = bed.path / name / where
    point.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "none"] if kind == "tmpfs" else ["mount", "--bind", str(outside)]
    if subprocess.run([*command, str(point)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        if kind == "tmpfs":
            (point / "photo").write_bytes(b"irreplaceable")
        bed.sweep()
        bed.sweep()
        assert len(bed.complaints) >= 1 and "stays for now" in bed.complaints[0]
        assert unharmed(outside)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        (there,) = [path for path in mounts if path.startswith(str(bed.path))]
        assert (Path(there) / "photo").read_bytes() == b"irreplaceable"
    finally:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if line.split()[4].startswith(str(bed.path)):
                subprocess.run(["umount", line.split()[4]], check=True)
    bed.sweep()
    assert bed.names() == []
    assert unharmed(outside)


def test_what_cannot_be_deleted_is_told_once_and_the_rest_goes(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = fill(bed.path / name_of())
    (directory / "stuck").write_text("x")
    real = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "stuck":
            raise PermissionError(1, "Operation not permitted", path)
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    for _ in range(3):
        bed.sweep()
    (trash,) = bed.names()
    assert os.listdir(bed.path / trash) == ["stuck"]
    assert len({each.split(" cannot be")[0] for each in bed.complaints}) == len(bed.complaints) == 1
    monkeypatch.undo()
    bed.sweep()
    assert bed.names() == []


def test_deletion_is_done_in_small_steps(bed: Bed) -> None:
    directory = fill(bed.path / name_of(), files=40)
    tally = Tally()
    descriptor = lock_alone(directory.name, bed.root.fd)
    seen = [tally.files for _ in delete(bed.root.fd, directory.name, descriptor, bed.root.device, tally)]
    os.close(descriptor)
    assert max(after - before for before, after in zip(seen, [*seen[1:], tally.files], strict=True)) <= 1
    assert (tally.files, bed.names()) == (40, [])
