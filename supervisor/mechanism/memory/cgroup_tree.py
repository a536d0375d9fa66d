"""Which control group this process is in, and the groups above it.

A limit anywhere between our own group and the root binds us, and reading it at the root of the mount misses
the nested one. /proc/self/cgroup names our group from the view of our cgroup namespace, /proc/self/mountinfo
says which part of the tree is mounted where, and the two views need not agree:

* host: the group is /user.slice/x, the mount shows "/": the directory is MOUNT/user.slice/x
* container without namespace: the group is /docker/x, the mount shows /docker/x: the directory is MOUNT
* container with namespace: the group is "/", the mount shows "/": the directory is MOUNT
* a mount made outside our namespace shows "/../..": the names between are unknown, so the group is
  looked for: it is the one whose cgroup.procs lists us

Version 1 has a tree for each controller, version 2 one for all; on hybrid hosts a controller is in exactly
one of them, and a mounted version 2 tree without controllers tells nothing.
"""

import os
import re
from typing import Literal, NamedTuple

from supervisor.mechanism.memory.kept_file import read_text

_MAX_LEVELS = 64
"""Depth of the tree that is looked at; container stacks have five to ten."""

_MAX_SEARCHED_GROUPS = 4096
"""Groups looked at when our own must be searched; bounds the start on a host with many containers."""


class Group(NamedTuple):
    """Our group for one controller: `path` is its directory, `top` the directory of the mount."""

    version: Literal[1, 2]
    path: str
    top: str

    def levels(self) -> list[str]:
        """Directories from our own group up to the top of the mount, ours first."""
        found = [self.path]
        while found[-1] != self.top and len(found) < _MAX_LEVELS:
            found.append(os.path.dirname(found[-1]))
        return found


class _Mount(NamedTuple):
    root: str
    point: str
    kind: str
    options: list[str]


def find_group(controller: Literal["memory", "cpu"], root: str = "/") -> Group | None:
    """The group that `controller` counts this process in, or None where there is none to be seen."""
    memberships = read_text(os.path.join(root, "proc", "self", "cgroup"))
    mounts = _mounts(root)
    if memberships is None or not mounts:
        return None
    unified: str | None = None
    for line in memberships.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            unified = path
        elif controller in controllers.split(","):
            found = _locate(1, path, [m for m in mounts if m.kind == "cgroup" and controller in m.options], root)
            if found is not None:
                return found
    if unified is None:
        return None
    return _locate(2, unified, [m for m in mounts if m.kind == "cgroup2" and _controls(m, controller, root)], root)


def _controls(mount: _Mount, controller: str, root: str) -> bool:
    text = read_text(os.path.join(_below(root, mount.point), "cgroup.controllers"))
    return controller in (text or "").split()


def _locate(version: Literal[1, 2], path: str, mounts: list[_Mount], root: str) -> Group | None:
    # The mount that shows the most of the tree is tried first: it shows the most limits.
    for mount in sorted(mounts, key=lambda m: len(m.root)):
        top = _below(root, mount.point)
        relative = _relative(path, mount.root)
        if relative is not None:
            directory = os.path.join(top, relative) if relative else top
            if os.path.isdir(directory):
                return Group(version, directory, top)
        searched = _search(top)
        if searched is not None:
            return Group(version, searched, top)
    return None


def _relative(path: str, mount_root: str) -> str | None:
    """`path` as seen from the mount's root, or None where the names between are not known."""
    if ".." in path.split("/") or ".." in mount_root.split("/"):
        return None
    inside = mount_root.rstrip("/")
    if path == inside or path.startswith(inside + "/"):
        return path[len(inside) :].strip("/")
    return None


def _search(top: str) -> str | None:
    """The directory at or below `top` whose cgroup.procs lists this process, breadth first and bounded."""
    me = str(os.getpid())
    waiting = [top]
    for looked_at in range(_MAX_SEARCHED_GROUPS):
        if looked_at >= len(waiting):
            return None
        directory = waiting[looked_at]
        if me in (read_text(os.path.join(directory, "cgroup.procs")) or "").split():
            return directory
        try:
            with os.scandir(directory) as entries:
                waiting.extend(sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False)))
        except OSError:
            # The group went away while we looked: it was not ours.
            continue
    return None


def _mounts(root: str) -> list[_Mount]:
    """The cgroup mounts of /proc/self/mountinfo (proc_pid_mountinfo(5)): after " - " come type, source, options."""
    found: list[_Mount] = []
    for line in (read_text(os.path.join(root, "proc", "self", "mountinfo")) or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) >= 6 and len(kinds) >= 3 and kinds[0] in ("cgroup", "cgroup2"):
            found.append(_Mount(_unescape(fields[3]), _unescape(fields[4]), kinds[0], kinds[2].split(",")))
    return found


def _unescape(field: str) -> str:
    """Blanks, tabs, newlines and backslashes are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/")).rstrip("/") or "/"
