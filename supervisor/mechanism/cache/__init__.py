"""The cache: results by the content of the image and the step that made them, in `cache.db` and in files.

One thread owns it all. Beside the journal this is the second, and last, owner of SQLite: the journal promises,
the cache does not; each has its file, its connection and its thread, and neither waits for the other.

* `thread`      commands in, events out; failure and recovery; `outstanding`: who waits
* `store`       index, blobs, memory level and policy as one: get, put, cull; `values`: what a step made
* `index`, `schema`, `records`   `cache.db`: statements, shape and damage, what a row holds
* `blobs`       large outputs as files with one owner each; `copying`: reflink, copy_file_range, copy
* `finder`      groups of items looked up and delivered; `places`: outputs that stand where they were left;
                `delivering`: one output under its final name; `hashing`: copies recognised by content
* `keeper`      what was made, taken in
* `upkeep`      rebuilding a lost index, sweeping what expired and orphans; `verify`: the verbs
* `memory`      the level above the index
* `offline`     figures where no supervisor runs
"""

from supervisor.mechanism.cache.store import Store, default_limit
from supervisor.mechanism.cache.thread import CacheThread

__all__ = ["CacheThread", "Store", "default_limit"]
