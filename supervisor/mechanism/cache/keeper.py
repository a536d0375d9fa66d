"""Takes what was made into the store: outputs are read where they were published, after their row is committed.

A shortcut is kept only for a file that had rested a moment when it was hashed: one written in the same tick of
the file system's clock could change again and look the same (git knows this as a racily clean file).
"""

import os
import stat

from protocol import paths
from supervisor.mechanism.cache.places import Places, output_stem, place_key
from supervisor.mechanism.cache.store import MEMORY_READ_BYTES, Store
from supervisor.mechanism.cache.values import NewOutput, NewValue
from supervisor.policy.cache.asked import Made, MadeOutput, MadeStep, StoreItems
from supervisor.policy.cache.keys import CONTENT_BYTES

REST_NS = 100_000_000
"""Ten ticks of the slowest kernel clock (100 Hz)."""


class Keeper:
    """Keeps items; not thread safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places = Places(store)

    def keep(self, command: StoreItems, made: Made) -> bool:
        """Keeps one item; False where nothing can be kept of it.

        Raises sqlite3.Error and OSError where the cache's disk refuses.
        """
        content = _content(made.content)
        if content is None or len(made.steps) != len(command.steps):
            return False
        stem = output_stem(command.out, made.stem)
        kept = True
        for step, result in zip(command.steps, made.steps, strict=True):
            outputs = self._open(result, stem)
            if outputs is None:
                return False
            try:
                value = NewValue(
                    outputs=outputs,
                    values=result.values,
                    warnings=made.warnings,
                    cost_seconds=result.seconds,
                    image_bytes=made.stamp.size_bytes,
                )
                kept = self._store.put(content, step, value) and kept
            except ValueError:
                return False  # somebody changes the outputs already: what was made is not what is there
            finally:
                for output in outputs:
                    if output.source is not None:
                        os.close(output.source)
        if max(made.stamp.mtime_ns, made.stamp.ctime_ns) + REST_NS <= made.hashed_at_ns:
            self._places.note_shortcut(made.stamp, content)
        finals = [paths.from_token(output.path) for result in made.steps for output in result.outputs]
        if finals:
            self._places.note(place_key(command.out, made.stem, command.steps), content, finals)
        self._places.write()
        return kept

    def _open(self, result: MadeStep, stem: bytes | None) -> list[NewOutput] | None:
        """Opens what a step wrote; None where it is not there as it was reported."""
        opened: list[NewOutput] = []
        for output in result.outputs:
            one = _open_output(output, stem)
            if one is None:
                for earlier in opened:
                    os.close(earlier.source or -1)
                return None
            opened.append(one)
        return opened


def _open_output(output: MadeOutput, stem: bytes | None) -> NewOutput | None:
    try:
        final = paths.from_token(output.path)
        if stem is None or not final.startswith(stem + b"."):
            return None
        suffix = final[len(stem) + 1 :].decode("utf-8")
        descriptor = os.open(final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(descriptor)
        sound = stat.S_ISREG(found.st_mode) and found.st_size == output.size_bytes and "/" not in suffix
        small = sound and found.st_size <= MEMORY_READ_BYTES
        content = os.pread(descriptor, found.st_size + 1, 0) if small else None
    except OSError:
        sound, content = False, None
    if not sound or (content is not None and len(content) != output.size_bytes):
        os.close(descriptor)
        return None
    return NewOutput(suffix, output.width, output.height, output.size_bytes, content, descriptor)


def _content(text: str) -> bytes | None:
    try:
        content = bytes.fromhex(text)
    except ValueError:
        return None
    return content if len(content) == CONTENT_BYTES else None
