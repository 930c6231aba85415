"""Names for functions: the registry behind ``load_data`` and ``load_embedding``.

A name is either plain (``"digits"``) or open (``"folder:"``): ``registry.find("folder:photos/cats")`` gives the entry
of ``"folder:"`` and the rest ``("photos/cats",)``, which the function takes by position.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from spec_repro.base.errors import InvalidInput, unknown_name


class Entry(NamedTuple):
    """One registered function; ``about`` is whatever the room wants to know before calling it."""

    function: Callable[..., Any]
    about: Any = None


class Registry(dict[str, Entry]):
    """A dict from names to entries of one ``kind`` ("data set", "embedding")."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def add(self, name: str, function: Callable[..., Any], about: Any = None) -> None:
        """Register ``function``; a name that another function holds is refused (a notebook cell may run twice)."""
        if name in self and self[name].function.__qualname__ != function.__qualname__:
            raise InvalidInput(f"{self.kind} {name!r} is registered already; choose another name.")
        self[name] = Entry(function, about)

    def find(self, name: str) -> tuple[Entry, tuple[str, ...]]:
        """The entry of ``name`` and what its function takes by position: nothing, or the rest of an open name.

        Raises UnknownName with the near miss.
        """
        head, colon, rest = name.partition(":")
        if head + colon not in self:
            raise unknown_name(self.kind, head + colon, self)
        if colon and not rest:
            raise InvalidInput(f"{self.kind} {name!r} needs something after the colon, as in '{head}:PATH'.")
        return self[head + colon], (rest,) if colon else ()
