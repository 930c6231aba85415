"""Names for functions: the registry behind ``load_data`` and ``load_embedding``.

A name is either plain (``"digits"``) or open (``"folder:"``): ``registry.find("folder:photos/cats")`` gives the entry
of ``"folder:"`` and the rest ``("photos/cats",)``, which the function takes by position. Its keywords are options.
"""

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from spec_repro.base.errors import InvalidInput, among, unknown_name

NUMBERS = {int: Integral, float: Real}  # numpy's, too


class Entry(NamedTuple):
    """One registered function; ``about`` is whatever the room wants to know before calling it."""

    function: Callable[..., Any]
    about: Any = None

    def options(self) -> dict[str, tuple[type, ...]]:
        """The kinds of values of each keyword, by its annotation or else its default; ``**`` if it takes any other."""
        found = {}
        for each in inspect.signature(self.function, eval_str=True).parameters.values():
            kind = each.annotation if each.annotation is not each.empty else type(each.default)
            if kind is type(None) or each.kind is each.VAR_KEYWORD:
                kind = object
            parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind]
            if each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD) or each.default is not each.empty:
                name = "**" if each.kind is each.VAR_KEYWORD else each.name
                found[name] = tuple(object if part is Any else get_origin(part) or part for part in parts)
        return found


class Registry(dict[str, Entry]):
    """A dict from names to entries of one ``kind`` ("data set", "embedding")."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def add(self, name: str, about: Any = None) -> Callable[[Callable], Callable]:
        """A decorator; a name that another function holds is refused (a notebook cell may run twice)."""

        def register(function: Callable) -> Callable:
            if name in self and self[name].function.__qualname__ != function.__qualname__:
                raise InvalidInput(f"{self.kind} {name!r} is registered already; choose another name.")
            self[name] = Entry(function, about)
            return function

        return register

    def find(self, name: str) -> tuple[Entry, tuple[str, ...]]:
        """The entry of ``name`` and what its function takes by position: nothing, or the rest of an open name.

        Raises UnknownName with the near miss.
        """
        head, colon, rest = name.partition(":")
        among(self.kind, head + colon, self)
        if colon and not rest:
            raise InvalidInput(f"{self.kind} {name!r} needs something after the colon, as in '{head}:PATH'.")
        return self[head + colon], (rest,) if colon else ()

    def taken(self, name: str, given: Mapping[str, Any], common: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Those options in ``given`` that the function of ``name`` takes; all may have the ``common`` ones.

        Raises UnknownName with the near miss, and InvalidInput for a value of another kind.
        """
        options = self.find(name)[0].options()
        for key, value in given.items():
            if key not in options.keys() | common and "**" not in options:
                raise unknown_name(f"option of {self.kind} {name!r}:", key, options.keys() | common)
            kinds = options.get(key, (object,))
            fits = isinstance(value, tuple(NUMBERS.get(each, each) for each in kinds))
            if not fits or (isinstance(value, bool) and not {bool, object} & {*kinds}):
                usual = "of another kind than " + " or ".join(each.__name__ for each in kinds)
                raise InvalidInput(f"option {key!r} of {self.kind} {name!r} is {value!r}, {usual}.")
        return {key: value for key, value in given.items() if key in options or "**" in options}
