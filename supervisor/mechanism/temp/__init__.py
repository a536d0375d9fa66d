"""The temp root: a directory for each worker, and a reaper that never deletes anything else.

* `root`      refuses what must not be a temp root, opens it, names what is in it
* `directory` opens, locks, trashes one directory of it, by descriptors
* `delete`    empties a trashed directory in bounded steps, without following or crossing anything
* `survey`    what is there: fates, bytes, sources, files that are deleted and still open
* `keeper`    the thread that does it: burials first, then a bounded turn of whatever else is to do

A thread of its own, because a directory of 100,000 files takes seconds and the chores thread starts workers.
Everything is done relative to descriptors opened without following links; a directory is renamed before it is
entered, which the kernel refuses for a mount point; what is renamed is deleted only if it is still the same inode.
"""

from supervisor.mechanism.temp.keeper import Keeper
from supervisor.mechanism.temp.offline import reap_offline, stats_offline
from supervisor.mechanism.temp.root import TempRoot

__all__ = ["Keeper", "TempRoot", "reap_offline", "stats_offline"]
