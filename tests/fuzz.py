"""`python -m tests.fuzz [SECONDS] [--corpus DIR]`: mutated files through a worker's whole way, outside of CI.

With `atheris` installed (`pip install atheris`) it is led by coverage: a mutation that reaches new lines of ours and of
Pillow is kept and mutated further (the decoders in C are seen by their effects alone). Without it hypothesis draws
mutations of the same files, as in `tests/mechanism/test_fuzz.py`, and the first line says so.

What counts as found: an exception out of `perform`, a verdict of kind `crash`, an item of more than ten seconds, a
decoder's death. Each input is written into the corpus before it is tried: what killed the process is `last`.
"""

import argparse
import importlib
import importlib.util
import os
import sys
import tempfile
import time
from typing import Any

SLOW_SECONDS = 10.0


class Found(Exception):
    """An input that nothing should be able to do this with."""


class Trial:
    """Performs every operation on one content after the other, as a worker would."""

    def __init__(self, corpus: str) -> None:
        from tests.mechanism.performing import Bench
        from tests.mechanism.test_fuzz import LIMITS, STEPS

        self.corpus, self.steps, self.tried = corpus, STEPS, 0
        self._place = tempfile.mkdtemp(prefix="gallery-fuzz-")
        self._bench = Bench(self._place, LIMITS)
        self._last = os.path.join(corpus, "last")

    def __call__(self, content: bytes) -> None:
        """Raises Found, after the input was kept under a name of its own."""
        self.tried += 1
        with open(self._last, "wb") as file:
            file.write(content)
        began = time.monotonic()
        try:
            report = self._bench.run(os.fsencode(self._last), *self.steps, overwrite=True)
        except Exception as error:
            raise Found(f"{self._kept(content)}: {type(error).__name__}: {error}") from error
        seconds = time.monotonic() - began
        if report.error is not None and report.error.kind == "crash":
            raise Found(f"{self._kept(content)}: {report.error.message}")
        if seconds > SLOW_SECONDS:
            raise Found(f"{self._kept(content)}: took {seconds:.1f} seconds")

    def _kept(self, content: bytes) -> str:
        path = os.path.join(self.corpus, f"found-{self.tried:06d}")
        with open(path, "wb") as file:
            file.write(content)
        return path


def main() -> int:
    """Returns the exit code: 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Mutated files through a worker's way.")
    parser.add_argument("seconds", nargs="?", type=int, default=600, help="how long [600]")
    parser.add_argument("--corpus", metavar="DIR", help="where inputs are kept [a directory that is named at the end]")
    given = parser.parse_args()
    corpus = given.corpus or tempfile.mkdtemp(prefix="gallery-corpus-")
    os.makedirs(corpus, exist_ok=True)
    led = importlib.util.find_spec("atheris") is not None
    print(f"led by coverage (atheris), {given.seconds} s" if led else f"not led by coverage: {_WAY_OUT}", flush=True)
    print(f"inputs in {corpus}", flush=True)
    return _led(corpus, given.seconds) if led else _drawn(corpus, given.seconds)


_WAY_OUT = "atheris is not installed (pip install atheris); hypothesis draws the mutations"


def _led(corpus: str, seconds: int) -> int:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["workers", "PIL"]):
        from tests.mechanism.test_fuzz import whole

        trial = Trial(corpus)
    for name, content in whole().items():
        with open(os.path.join(corpus, f"seed-{name}"), "wb") as file:
            file.write(content)
    arguments = [sys.argv[0], corpus, f"-max_total_time={seconds}", "-max_len=20000", f"-artifact_prefix={corpus}/"]
    atheris.Setup([*arguments, "-rss_limit_mb=0", "-timeout=60", "-verbosity=1"], trial)
    atheris.Fuzz()  # ends the process by itself, with a code of its own when something was found
    return 0


def _drawn(corpus: str, seconds: int) -> int:
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import HypothesisException

    from tests.mechanism.test_fuzz import mutated

    trial = Trial(corpus)
    until = time.monotonic() + seconds

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated())
    def some(case: tuple[str, bytes]) -> None:
        if time.monotonic() < until:
            trial(case[1])

    while time.monotonic() < until:
        try:
            some()
        except (Found, HypothesisException) as found:
            print(f"found after {trial.tried:,} inputs: {found}", file=sys.stderr)
            return 1
    print(f"nothing found in {trial.tried:,} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
