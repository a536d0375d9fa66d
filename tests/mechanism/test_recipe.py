"""Recipes are refused before any image is touched, and the refusal says how to mend them."""

import subprocess
import sys

import pytest

from protocol.messages import Recipe, Step
from tests.mechanism.performing import recipe_of, step
from workers.errors import RecipeError
from workers.recipe import compile_recipe

WRONG = [
    ([], "has no steps"),
    ([step("sharpen")], r"step 1 \(sharpen\): no operation 'sharpen'; known: .*thumbnail"),
    ([step("probe", deep=True)], "deep.*its parameters are: full"),
    ([step("phash", deep=True)], "deep.*its parameters are: none"),
    ([step("thumbnail", effort=9)], "effort: 0 to 6, not 9"),
    ([step("thumbnail", crop="attention", sizes=["x200"])], "crop: sizes with width and height"),
    ([step("thumbnail", frames="all", format="jpeg")], "frames: all are written as webp or gif"),
    ([step("thumbnail", format="gif", metadata="keep")], "a GIF holds none"),
    ([step("convert", quality=101)], "quality: 1 to 100"),
    ([step("convert"), step("convert", quality=50)], "writes .converted.jpg, as does step 1"),
    ([step("palette", colours=0)], "colours: 1 to 32"),
    ([step("thumbnail", size=3)], "`size`.*its parameters are: sizes, format, quality, effort, crop"),
    ([step("thumbnail", format="tiff")], "tiff"),
    ([step("thumbnail", quality=0)], "quality: 1 to 100, not 0"),
    ([step("thumbnail", quality="high")], r"quality"),
    ([step("thumbnail", sizes=["big"])], "sizes: 'big' is no size"),
    ([step("thumbnail", sizes=[])], "sizes: 1 to 32"),
    ([step("thumbnail", sizes=[256, "256"])], "writes .256.webp, as does step 1"),
    ([step("thumbnail"), step("probe"), step("thumbnail", sizes=[1024])], "step 3 .*writes .1024.webp, as does step 1"),
    ([step("misbehave.crash", signal=999)], "signal"),
    ([step("misbehave.leak", bytes=-1)], "bytes: at least 0"),
]


@pytest.mark.parametrize(("steps", "told"), WRONG)
def test_refusals_say_what_is_allowed(steps: list[Step], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        compile_recipe(Recipe(name="mine", steps=steps))


def test_a_version_names_the_operations_in_order() -> None:
    compiled = recipe_of(step("thumbnail"), step("probe"))
    assert (compiled.name, compiled.version, len(compiled.steps)) == ("test", "thumbnail:2,probe:2", 2)


def test_only_what_is_named_is_imported() -> None:
    code = (
        "import sys; from protocol.messages import Recipe, Step; from workers.recipe import compile_recipe\n"
        "compile_recipe(Recipe(name='n', steps=[Step(operation='noop')]))\n"
        "print([m for m in sys.modules if m.startswith(('workers.operations.', 'pyvips', 'numpy'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "['workers.operations.noop']", run.stderr
