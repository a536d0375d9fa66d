"""The template: the process that workers are forked from, warm with everything their recipes need.

It is preloaded by the fork server. What is imported here is paid for once and shared by all workers until
one of them writes to it, so that a replacement is ready in milliseconds. Its promises, each kept below:

* it dies with the supervisor's thread that started it, and its workers with it;
* it has one thread, or a fork would copy locks whose holders do not exist in the child;
* a preload that fails is an error with its reason in the report file, not a slow start: the fork server
  itself would swallow an ImportError and serve on, cold;
* its collector is frozen: a collection in a worker leaves the shared objects, and so their pages, alone.
  Measured after 100,000 no-op items with the decoders loaded: 4.7 MB private to a worker, 11.3 MB unfrozen.
  Turning a worker's collector off, or its thresholds up, gains nothing beyond that, so it is left on.

The report file says why there is no template; the supervisor fills it before the start ("never got that
far"), and only a template that is ready empties it.
"""

import gc
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import msgspec

from protocol.launch import PLAN_VARIABLE, CatalogueRecipe, TemplatePlan
from workers import limits

if TYPE_CHECKING:
    from workers.recipe import CompiledRecipe

FAILED = 70
"""Exit status of a template that could not be prepared (sysexits EX_SOFTWARE)."""

_KEPT = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "OMP_NUM_THREADS"}
_KEPT_PREFIXES = ("LC_", "PYTHON", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "VIPS_", "TESSDATA_", "GALLERY_")
"""What a worker gets of the environment: libraries and locale. Passwords of the supervisor's service are not
an image library's business. `GALLERY_` is for operations of third parties."""


def prepare() -> None:
    """Makes this process the template, as the plan in PLAN_VARIABLE says; leaves with FAILED when it cannot."""
    plan = msgspec.json.decode(os.environ[PLAN_VARIABLE], type=TemplatePlan)
    if plan.supervisor_pid == os.getpid():
        return  # imported by the supervisor's own process (a test): the plan is meant for its child
    try:
        _prepare(plan)
        with open(plan.report_path, "w"):
            pass
    except BaseException as error:  # SystemExit of a third party's module too: no reason may be lost
        reason = "".join(traceback.format_exception_only(error)).strip()
        _replace(plan.report_path, f"{reason} ({_place(error)})")
        os._exit(FAILED)


def _prepare(plan: TemplatePlan) -> None:
    os.setsid()  # Ctrl-C, Ctrl-Z and the terminal's end reach the supervisor alone
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a thread that blocks signals may have started us
    limits.die_with(plan.supervisor_pid)
    limits.be_called("gallery-template")
    os.dup2(2, 1)  # standard output is the command line's: what a library prints goes to the log
    _leave_environment()
    gc.disable()
    _import_all(plan)
    threads = _thread_count()
    if threads != 1:
        raise RuntimeError(
            f"{threads} threads after the preload, where one is allowed: an operation of "
            f"{', '.join(recipe.name for recipe in plan.recipes)} starts threads when it is imported"
        )
    gc.collect()
    gc.freeze()
    gc.enable()


def _replace(path: str, text: str) -> None:
    """Writes beside and renames: a report that is empty for an instant would say that all is well."""
    with open(f"{path}.new", "w", encoding="utf-8", errors="backslashreplace") as report:
        report.write(text)
    os.replace(f"{path}.new", path)


def _leave_environment() -> None:
    for name in list(os.environ):
        if name == PLAN_VARIABLE or not (name in _KEPT or name.startswith(_KEPT_PREFIXES)):
            del os.environ[name]
    # One operation at a time a worker, and a worker a core: libvips' own threads would only compete.
    os.environ.setdefault("VIPS_CONCURRENCY", "1")


def _import_all(plan: TemplatePlan) -> None:
    import workers.entry
    from workers.operations import foreign
    from workers.recipe import compile_recipe

    assert workers.entry.main is not None
    foreign()  # two operations of one name are refused here, whether or not a recipe names them
    compiled = [compile_recipe(recipe) for recipe in plan.recipes]
    _write_catalogue(plan, compiled)
    reads = {recipe.reads for recipe in compiled}
    if reads & {"header", "pixels"}:
        _import_decoders(pixels="pixels" in reads)


def _write_catalogue(plan: TemplatePlan, compiled: "list[CompiledRecipe]") -> None:
    if plan.catalogue_path:
        catalogue = [CatalogueRecipe(recipe=recipe.name, steps=recipe.in_cache()) for recipe in compiled]
        with open(plan.catalogue_path, "wb") as file:
            file.write(msgspec.json.encode(catalogue))


def _import_decoders(*, pixels: bool) -> None:
    """Imports what the libraries themselves would import at a worker's first image, once a worker."""
    from PIL import Image

    from workers.images.quiet import silence_libtiff

    Image.init()
    silence_libtiff()
    if pixels:
        import PIL.ImageCms

        from workers.images import with_vips

        assert PIL.ImageCms is not None
        with_vips.library()


def _thread_count() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return len(sys._current_frames())  # no /proc: at least Python's own


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "no traceback"


if PLAN_VARIABLE in os.environ:
    prepare()
