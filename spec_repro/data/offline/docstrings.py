"""``docstrings``: what the scientific libraries of Python say about themselves, paragraph by paragraph.

The sources of numpy, scipy, scikit-learn, scikit-image and pandas are parsed as they are installed; nothing of them is
imported or run. A paragraph is a block of prose of a public docstring, outside its lists of parameters, returns,
examples and references. The text follows the versions of the libraries, which `load_data` states.
"""

import ast
import inspect
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import distribution

from datasets import ClassLabel, Dataset, Features, Value

from spec_repro.data.registry import dataset_loader

LIBRARIES = {"numpy": "numpy", "scipy": "scipy", "sklearn": "scikit-learn", "skimage": "scikit-image", "pandas": "pandas"}
# Not about their library: tests, tools of its developers, and copies of other projects.
BESIDE = re.compile(r"/(_?tests?|conftest|_?testing|externals|_external|_lib|f2py|distutils|_build_utils|typing|_typing)\b|/(test|setup)")
PROSE = ("", "Notes", "Warnings", "Warning", "Extended Summary")  # sections of a docstring, the first of them untitled
# Code, tables, lists, formulas, directives, and templates that are filled in at run time.
OTHER = re.compile(r"^\s|^[-*+|=~.>#]|^\(?\d+[.)]|^\[|>>>|::|\\|[{}=]|%\(|\|\w+\||---|^:|http", re.MULTILINE)
MARKUP = re.compile(r":[\w:+-]+:(?=`)|``?~?|\*\*|(?<!\w)\*|\*(?!\w)|(?<=\w)_(?!\w)")
WORDS, LONGEST, FEWEST = 12, 700, 20  # words and characters of a paragraph, paragraphs of a subject


#@
def docstrings() -> Dataset:
    """All paragraphs, by library and file; ``label`` is the subject (the sub-package), ``library`` whose it is."""
    rows, known = [], set()
    for library, package in LIBRARIES.items():
        for file in sorted(distribution(package).files, key=str):
            if file.parts[0] == library and file.suffix == ".py" and not BESIDE.search(f"/{file}"):
                tree = ast.parse(file.locate().read_text(encoding="utf-8"))
                for name, text in _documented(tree):
                    for i, paragraph in enumerate(paragraphs(text)):
                        if paragraph.lower() not in known:
                            known.add(paragraph.lower())
                            rows.append({"id": f"{file}/{name}/{i}", "text": paragraph, "label": _subject(file.parts), "library": library})
    counts = Counter(row["label"] for row in rows)
    return rows, counts


def _subject(parts):
    names = [part.strip("_").removesuffix(".py") for part in parts[1:]]
    return names[names[0]=="core" and parts[0]=="pandas"] if len(parts) > 2 else "top"


def paragraphs(docstring: str) -> Iterator[str]:
    """The paragraphs of prose in a docstring, without markup, each on one line."""
    section, blocks = "", re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    for block in blocks:
        lines = block.splitlines()
        if len(lines) > 1 and re.fullmatch(r"[-=~]{3,}", lines[1].strip()):
            section, block = lines[0].strip(), "\n".join(lines[2:])
        text = " ".join(MARKUP.sub("", block).split())
        if section in PROSE and not OTHER.search(block) and len(text) <= LONGEST and len(text.split()) >= WORDS:
            yield text


def _documented(node, name=""):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef|ast.ClassDef|ast.AsyncFunctionDef):
            if child.name[0] != "_":
                inner = f"{name}.{child.name}".strip(".")
                if text := ast.get_docstring(child, clean=False):
                    yield inner, text
                if isinstance(child, ast.ClassDef):
                    yield from _documented(child, inner)
        elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call) and getattr(child.value.func,"id","") in("add_newdoc",):
            strings=[c.value for a in child.value.args for c in ast.walk(a) if isinstance(c,ast.Constant) and isinstance(c.value,str)]
            if strings: yield ".".join(strings[:-1]), strings[-1]
        elif isinstance(child, ast.If|ast.Try|ast.With):
            yield from _documented(child, name)
