"""The pages of notebooks open without a network: no scripts, and every formula of the notebooks is a picture."""

import re
from base64 import b64encode

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbconvert import HTMLExporter
from traitlets.config import Config

from spec_repro.base.files import project_root
from spec_repro.headless.formulas import Formulas
from spec_repro.headless.notebooks import clean_notebook
from spec_repro.plots.style import new_figure

TEMPLATES = project_root() / "spec_repro" / "headless" / "templates"


def page(notebook) -> str:
    settings = Config({"HTMLExporter": {"preprocessors": [Formulas]}})
    exporter = HTMLExporter(template_name="offline", extra_template_basedirs=[str(TEMPLATES)], config=settings)
    return exporter.from_notebook_node(notebook)[0]


def test_a_page_has_its_formulas_and_asks_for_nothing():
    text = r"The kernel $\Lambda = \frac1n(K_1 - K_2)$, the code `$HOME` and $\unknown{x}$."
    found = page(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]))
    assert re.search(r'<img alt="\\Lambda = \\frac1n\(K_1 - K_2\)"[^>]* src="data:image/svg', found)
    assert "<code>$HOME</code>" in found
    assert r"$\unknown{x}$" in found
    assert "<script" not in found
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", found)


def test_a_figure_says_on_a_page_what_it_shows():
    """The label of a figure, which a screen reader reads, comes through a kernel's display and the cleaning."""
    figure = new_figure(1, 1)
    figure.set_label("Distances: small where it is seen")
    data, metadata = DisplayFormatter().format(figure)
    output = nbformat.v4.new_output(
        "display_data", {"image/png": b64encode(data["image/png"]).decode()}, metadata=metadata
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("figure", outputs=[output])])
    assert 'alt="Distances: small where it is seen"' in page(clean_notebook(notebook))


@pytest.mark.parametrize("path", sorted((project_root() / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_formula_of_the_notebooks_can_be_drawn(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    for cell in cells:
        drawn = Formulas().preprocess_cell(cell, {}, 0)[0].source
        assert re.findall(r"\$[^$`\n]+\$", re.sub("<img [^>]*>", "", drawn)) == []
