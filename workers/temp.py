"""The worker's own temp directory: emptied when a lease is over, gone when the worker is."""

import os
import shutil


def clear_directory(path: str) -> None:
    """Deletes everything in a directory, which stays. Raises OSError when something cannot be deleted."""
    with os.scandir(path) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def remove_directory(path: str) -> None:
    """Deletes a directory with everything in it. Raises OSError when something cannot be deleted."""
    shutil.rmtree(path)
