"""Recipes, as clients and workers see them."""

from typing import Any

from protocol.messages.base import Part


class Step(Part, frozen=True, forbid_unknown_fields=True):
    """One step of a recipe: an operation with its parameters (validated by the operation)."""

    operation: str
    parameters: dict[str, Any] = {}


class Recipe(Part, frozen=True, forbid_unknown_fields=True):
    """A named list of steps; the image is decoded once for all steps that can share a decode."""

    name: str
    steps: list[Step]
