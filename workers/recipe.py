"""A recipe, compiled: its operations found, its parameters validated, before any image is touched."""

from typing import Any

import msgspec

from protocol.launch import CatalogueStep
from protocol.messages import Recipe, Step
from workers.errors import RecipeError
from workers.images.header import Header
from workers.operations import Operation, Reads, load

_ORDER: tuple[Reads, ...] = ("nothing", "name", "header", "pixels")


class CompiledStep(msgspec.Struct, frozen=True):
    """One step: its operation and its validated parameters."""

    operation: Operation
    parameters: Any


class CompiledRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe that can run. `version` names its operations with their versions, in order."""

    name: str
    version: str
    steps: tuple[CompiledStep, ...]
    reads: Reads

    def side(self, header: Header) -> int:
        """Returns the longest side in pixels of the one picture that serves all steps (0: none)."""
        return max(step.operation.side(header, step.parameters) for step in self.steps)

    @property
    def embedded(self) -> bool:
        """Whether every step that looks at pixels is content with an embedded thumbnail."""
        return all(step.operation.embedded(step.parameters) for step in self.steps if step.operation.reads == "pixels")

    def in_cache(self) -> list[CatalogueStep]:
        """Returns what the steps are to the cache; empty where it could not tell two results apart."""
        if any(not step.operation.cacheable or step.operation.reads in ("nothing", "name") for step in self.steps):
            return []
        return [
            CatalogueStep(
                operation=step.operation.name,
                version=step.operation.version,
                parameters=msgspec.to_builtins(step.parameters),
                edition=step.operation.edition(step.parameters),
            )
            for step in self.steps
        ]

    def beside(self, header: Header) -> int:
        """Returns the bytes that the greediest step takes beside that picture."""
        return max(step.operation.beside(header, step.parameters) for step in self.steps)


def _version(step: CompiledStep) -> str:
    operation = step.operation
    return f"{operation.name}:{operation.version}{operation.edition(step.parameters)}"


def check_step(operation: Operation, step: Step, where: str) -> Any:
    """Returns the validated parameters of a step. Raises RecipeError, which begins with `where`."""
    try:
        parameters = msgspec.convert(step.parameters, operation.parameters)
        operation.check(parameters)
        operation.writes(parameters)
    except msgspec.ValidationError as error:
        fields = ", ".join(operation.parameters.__struct_fields__) or "none"
        raise RecipeError(f"{where}: {error}; its parameters are: {fields}") from error
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error
    return parameters


def compile_recipe(recipe: Recipe) -> CompiledRecipe:
    """Returns the recipe ready to run. Raises RecipeError: which step, which parameter, what is allowed."""
    if not recipe.steps:
        raise RecipeError(f"recipe {recipe.name!r} has no steps")
    steps = []
    written: dict[str, str] = {}
    for number, step in enumerate(recipe.steps, 1):
        where = f"recipe {recipe.name!r}, step {number} ({step.operation})"
        try:
            operation = load(step.operation)
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from error
        parameters = check_step(operation, step, where)
        for output in operation.writes(parameters):
            if output in written:
                raise RecipeError(
                    f"{where}: writes .{output}, as does {written[output]}; give it another size or format"
                )
            written[output] = f"step {number}"
        steps.append(CompiledStep(operation, parameters))
    return CompiledRecipe(
        name=recipe.name,
        version=",".join(_version(step) for step in steps),
        steps=tuple(steps),
        reads=max((step.operation.reads for step in steps), key=_ORDER.index),
    )
