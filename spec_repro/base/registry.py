"""Names for functions: the registry behind ``load_data`` and ``load_embedding``.

A name is either plain (``"digits"``) or open (``"folder:"``): ``registry.find("folder:photos/cats")`` gives the entry
of ``"folder:"`` and the rest ``"photos/cats"``, which the function receives as its first argument.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spec_repro.base.errors import InvalidInput, UnknownName, unknown_name

__all__ = ["Entry", "Registry"]


@dataclass(frozen=True)
class Entry:
    """One registered function; ``about`` is whatever the room wants to know before calling it."""

    name: str
    function: Callable[..., Any]
    about: Any = None

    def accepts(self) -> set[str]:
        """Names of the keyword arguments that the function declares."""
        return {p.name for p in inspect.signature(self.function).parameters.values() if p.kind is p.KEYWORD_ONLY}

    def passes_on(self) -> bool:
        """Whether the function hands further options (``**options``) to another one, which then checks them."""
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.function).parameters.values())


@dataclass(frozen=True)
class Registry(Mapping[str, Entry]):
    """A mapping from names to entries of one ``kind`` ("data set", "embedding")."""

    kind: str
    entries: dict[str, Entry] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, name: str, function: Callable[..., Any], about: Any = None) -> None:
        """Register ``function``; a name that another function holds is refused."""
        held = self.entries.get(name)
        if held is not None and held.function.__qualname__ != function.__qualname__:
            raise InvalidInput(f"{self.kind} {name!r} is registered already; choose another name.")
        self.entries[name] = Entry(name, function, about)

    def find(self, name: str) -> tuple[Entry, tuple[str, ...]]:
        """The entry of ``name`` and what its function takes by position: nothing, or the rest of an open name."""
        if name in self.entries and not name.endswith(":"):
            return self.entries[name], ()
        head, colon, rest = name.partition(":")
        if not colon or head + colon not in self.entries:
            raise unknown_name(self.kind, head + colon, self.entries)
        if not rest:
            raise InvalidInput(f"{self.kind} {name!r} needs something after the colon, as in '{head}:PATH'.")
        return self.entries[head + colon], (rest,)

    def call(self, name: str, always: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Call the function of ``name`` with ``options``, all of them known, and what it declares of ``always``."""
        entry, rest = self.find(name)
        known = entry.accepts()
        for option in () if entry.passes_on() else sorted(set(options) - known):
            if not known | set(always):
                raise UnknownName(f"{self.kind} {name!r} has no options; leave {option!r} out.")
            raise unknown_name(f"option of {self.kind} {name!r}:", option, known | set(always))
        common = {k: v for k, v in always.items() if k in known and v is not None}
        return entry.function(*rest, **common, **options)
