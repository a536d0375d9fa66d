"""Recipes: named lists of steps. The built-in ones, and the user's own from supervisor.toml.

    [recipes.small]
    steps = [{ operation = "thumbnail", sizes = [128], format = "jpeg" }, { operation = "probe" }]

Only the shape is checked here; what the parameters of a step may be is known by its operation, which a
worker loads: a recipe it does not understand stops the start with the reason.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from protocol.messages import Recipe, Step

MAX_STEPS = 32
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_OPERATION = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def _recipe(name: str, *steps: Step) -> Recipe:
    return Recipe(name=name, steps=list(steps))


def _thumbnail(*sizes: int) -> Step:
    return Step(operation="thumbnail", parameters={"sizes": list(sizes), "format": "webp", "quality": 80})


BUILT_IN: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _recipe("thumbs", _thumbnail(256, 1024)),
        _recipe(
            "web",
            _thumbnail(256, 512, 1024, 2048),
            Step(operation="probe"),
            Step(operation="phash"),
            Step(operation="thumbhash"),
        ),
        _recipe("probe", Step(operation="probe", parameters={"full": True})),
        _recipe("ocr", Step(operation="ocr")),
        _recipe("noop", Step(operation="noop")),
    )
}
DESCRIPTIONS = {
    "thumbs": "thumbnails of 256 and 1024 pixels, WebP",
    "web": "thumbnails of 256, 512, 1024 and 2048 pixels, WebP; metadata; perceptual hash; thumbhash",
    "ocr": "text, where it stands and how sure it is, line by line (needs the extra ocr)",
    "probe": "metadata only: format, size, orientation, date, camera, place; all of EXIF, XMP and IPTC",
}
NEEDED = {"ocr": ("numpy", "onnxruntime", "cv2")}
"""What the built-in recipes that come with an extra import; where it is missing there is no such recipe."""
HIDDEN = frozenset({"noop"})
"""For benchmarks: works on nothing and writes nothing."""

VALUES_ONLY = frozenset({"probe", "phash", "embed", "thumbhash", "palette", "sharpness", "ocr", "noop"})
"""Operations that write no file; any other one may."""


def needs_output(recipe: Recipe) -> bool:
    """Tells whether a recipe may write files, so that somebody must say where."""
    return any(step.operation not in VALUES_ONLY for step in recipe.steps)


def all_recipes(user: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Returns the built-in recipes whose extra is installed, and the user's."""
    here = {name: recipe for name, recipe in BUILT_IN.items() if _installed(name)}
    return {**here, **user}


def _installed(name: str) -> bool:
    if name not in NEEDED:
        return True
    models = any(find_spec(package) is not None for package in ("rapidocr", "rapidocr_onnxruntime"))
    return models and all(find_spec(module) is not None for module in NEEDED[name])


def read_recipes(table: object) -> tuple[dict[str, Recipe], list[str]]:
    """Returns the recipes of the `recipes` table and what is wrong with the others, a sentence each."""
    if not isinstance(table, dict):
        return {}, ["key recipes: tables [recipes.NAME] are needed"]
    recipes: dict[str, Recipe] = {}
    faults: list[str] = []
    for name, body in table.items():
        found = _faults_of(name, body)
        faults += [f"key recipes.{name}: {fault}" for fault in found]
        if not found:
            recipes[name] = Recipe(name=name, steps=[_step(step) for step in body["steps"]])
    return recipes, faults


def _step(table: dict[str, Any]) -> Step:
    return Step(operation=table["operation"], parameters={k: v for k, v in table.items() if k != "operation"})


def _faults_of(name: str, body: object) -> list[str]:
    if name in BUILT_IN:
        return [f"{name!r} is built in; choose another name"]
    if not _NAME.fullmatch(name):
        return ["a name is a letter, then letters, digits, '-' or '_', at most 64"]
    if not isinstance(body, dict) or set(body) != {"steps"} or not isinstance(body["steps"], list):
        return ["exactly one key, steps = [{ operation = ..., ... }, ...], is needed"]
    steps = body["steps"]
    if not 1 <= len(steps) <= MAX_STEPS:
        return [f"{len(steps)} steps; 1 to {MAX_STEPS} are possible"]
    faults = []
    for number, step in enumerate(steps, start=1):
        operation = step.get("operation") if isinstance(step, dict) else None
        if not isinstance(operation, str) or not _OPERATION.fullmatch(operation):
            faults.append(f'step {number}: operation = "NAME" is needed, got {operation!r}')
    return faults
