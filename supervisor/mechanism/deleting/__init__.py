"""Directories emptied and removed, in this process or in one of their own.

* `directory` opens a directory by descriptor, without following anything
* `tree`      empties a trashed directory in bounded steps, without following or crossing anything
* `process`   is what a process of its own does
* `helper`    starts that process and follows it

Nothing here imports more than the standard library's small modules: a process that only deletes is there within some
10 ms, and holds 10 MB while it lasts.
"""
