"""What a dead worker leaves: one unfinished output, and its temp directory.

The output's name was recorded before the file was created; exactly that name is deleted, and only if it has the form
of an unfinished output of this state directory. In people's folders nothing else is ever touched.
"""

import os
import shutil


def bury(directory: str, partial: bytes, state_token: str) -> None:
    """Deletes both; what is gone already is no fault. Raises OSError for what cannot be deleted."""
    remove_partial(partial, state_token)
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        pass  # the worker left in good order and took it along


def remove_partial(partial: bytes, state_token: str) -> bool:
    """Deletes an unfinished output if the name is one of ours; tells whether it did."""
    if not partial or not os.path.basename(partial).startswith(f".gs-{state_token}-".encode()):
        return False
    try:
        os.unlink(partial)
    except FileNotFoundError:
        return False
    return True


def empty_directory(directory: str) -> None:
    """Deletes what an earlier run left in our own temp directory, which is made if it is not there."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
