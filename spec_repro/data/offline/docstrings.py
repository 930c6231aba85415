"""``docstrings``: what the scientific libraries of Python say about themselves, paragraph by paragraph.

The sources of numpy, scipy, scikit-learn, scikit-image and pandas are parsed as they are installed; nothing of them is
imported or run. A paragraph is a block of prose in the docstring of a public function or class, outside the lists of
its parameters and returns, its examples and references. The text follows the versions of the libraries.
"""

import ast
import functools
import gc
import inspect
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Value

from spec_repro.base.errors import DataMissing
from spec_repro.data.registry import dataset_loader

LIBRARIES = {name: name for name in ("numpy", "pandas", "scipy")} | {
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
# Not about its library: tests, tools of its developers, copies of other projects.
BESIDE = re.compile(
    r"/(_?tests?(ing)?|conftest|externals?|vendored|_lib|_shared|internals|compat|_?util(s|ity)?|_?typing|_config|f2py"
    r"|distutils|_build_utils|setup)[/.]|/test_"
)
PROSE = ("", "Notes", "Warnings", "Warning")  # the sections that are read, first of them the one without a title
# What is no prose: quotations of code and what goes on from or leads to one, tables, lists, directives, formulas,
# templates to be filled in, addresses.
OTHER = re.compile(r"^\s|^[-*+|=~.>#:[]|^\(?\w[.)] |>>>|::|\\|[{}=<>|]|%[(s]|---|//|\A[a-z]|:\Z", re.MULTILINE)
MARKUP = re.compile(r":[\w:+-]+:(?=`)|`+~?|\*+(?=\w)|(?<=\w)\*+|\s?\[\w+\]_")  # roles, quotes, stress, citations
WORDS, CHARACTERS, PARAGRAPHS = 12, 700, 20  # at least, at most of a paragraph; at least of a subject


@dataset_loader("docstrings")
def docstrings() -> Dataset:
    """All paragraphs, by library and file; ``label`` is the subject (the sub-package), ``library`` whose it is."""
    gc.freeze()  # else all objects are looked through at every file, which takes half of the time
    found = {}
    for row in itertools.chain(*map(_rows, LIBRARIES)):
        found.setdefault(row["text"].lower(), row)
    gc.unfreeze()
    counts = Counter(row["label"] for row in found.values())
    rows = [row for row in found.values() if counts[row["label"]] >= PARAGRAPHS]
    kinds = {name: ClassLabel(names=sorted({row[name] for row in rows})) for name in ("label", "library")}
    dataset = Dataset.from_list(rows, features=Features({"id": Value("string"), "text": Value("string"), **kinds}))
    dataset.info.description = "Of " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES.values()) + "."
    return dataset


def _rows(library: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a library, file by file. An ``id`` begins with the version: other versions, other data."""
    package, home = LIBRARIES[library], find_spec(library)
    if home is None:
        raise DataMissing(f"docstrings reads the sources of {package}, which is not installed: pip install {package}.")
    edition = f"{package}-{version(package)}"
    for subject, place, text in _read(Path(home.submodule_search_locations[0])):
        yield {"id": f"{edition}/{place}", "text": text, "label": subject, "library": library}


@functools.cache  # what is installed stays as it is while a process runs
def _read(root: Path) -> list[tuple[str, str, str]]:
    """Subject, place and text of each paragraph of the sources below ``root``."""
    found = []
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root)
        if not BESIDE.search(f"/{file.as_posix()}"):
            subject = next(name.strip("_") for name in file.with_suffix("").parts if name != "core")  # all of pandas is
            named = documented(ast.parse(path.read_bytes()))
            texts = ((name, text) for name, docstring in named for text in paragraphs(docstring))
            found += [(subject, f"{file.as_posix()}/{name}/{i:03d}", text) for i, (name, text) in enumerate(texts)]
    return found


def documented(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, str]]:
    """Name and docstring of every public function and class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if docstring := ast.get_docstring(node, clean=False):
                yield inside + node.name, docstring
            if isinstance(node, ast.ClassDef):
                yield from documented(node, f"{inside}{node.name}.")


def paragraphs(docstring: str) -> Iterator[str]:
    """The paragraphs of prose, each on one line and without markup."""
    section = ""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if heading := re.match(r"(.+)\n[-=~]{3,}\s*", block):
            section, block = heading[1], block[heading.end() :]
        plain = MARKUP.sub("", block)
        text = " ".join(plain.split())
        if section in PROSE and not OTHER.search(plain) and len(text) <= CHARACTERS and len(text.split()) >= WORDS:
            yield text
