"""What a dead worker leaves in people's folders: one unfinished output.

Its name was recorded before the file was created; exactly that name is deleted, and only if it has the form of an
unfinished output of this state directory. Nothing else is ever touched there.
"""

import os


def remove_partial(partial: bytes, state_token: str) -> bool:
    """Deletes an unfinished output if the name is one of ours; tells whether it did. Raises OSError."""
    if not partial or not os.path.basename(partial).startswith(f".gs-{state_token}-".encode()):
        return False
    try:
        os.unlink(partial)
    except FileNotFoundError:
        return False
    return True
