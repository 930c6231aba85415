"""The public functions and classes with their signatures and docstrings, for the report's page of the interface."""

import contextlib
import importlib
import inspect
from types import FunctionType

FACES = ("spec_repro", *(f"spec_repro.{room}" for room in ("agreement", "plots", "data", "embeddings", "align")))


def interface() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each face its public functions and classes: name, signature and docstring.

    A class is followed by its public methods and properties, as ``Class.method``.
    """
    found = []
    for face in FACES:
        module = importlib.import_module(face)
        objects = {name: getattr(module, name) for name in module.__all__}
        made = {name: item for name, item in objects.items() if inspect.isclass(item) or inspect.isfunction(item)}
        found.append((face, [entry for name, item in made.items() for entry in _entries(name, item)]))
    return found


def _entries(name: str, item) -> list[tuple[str, str, str]]:
    signature = ""
    with contextlib.suppress(ValueError, TypeError):  # of a class that is written in C, of a property
        signature = str(inspect.signature(item))
    entries = [(name, signature, inspect.getdoc(item) or "")]
    for key, value in vars(item).items() if inspect.isclass(item) else ():
        if not key.startswith("_") and isinstance(value, FunctionType | property):
            entries += _entries(f"{name}.{key}", value)
    return entries
