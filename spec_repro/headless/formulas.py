"""Formulas as pictures, for nbconvert: the page of a notebook is read from disk, where no MathJax can be loaded."""

import base64
import io
import re
from html import escape

from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert.preprocessors import Preprocessor

TEX = re.compile(r"(?<![\\`])(\$\$?)([^$`]+)\1")
# What TeX takes and matplotlib does not, and what matplotlib takes.
SHORT = ((r"\\frac(\w)(\w)", r"\\frac{\1}{\2}"), (r"\\([lg])e\b", r"\\\1eq"))


class Formulas(Preprocessor):
    """Replaces each ``$...$`` and ``$$...$$`` of a text cell by a picture, whose alternative text it is.

    What matplotlib cannot draw stays as it was written.
    """

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type == "markdown":
            cell.source = TEX.sub(_drawn, cell.source)
        return cell, resources


def _drawn(found: re.Match) -> str:
    text, picture = " ".join(found[2].split()), io.BytesIO()
    long = text
    for short, form in SHORT:
        long = re.sub(short, form, long)
    try:
        depth = math_to_image(f"${long}$", picture, FontProperties(size=11), dpi=72, format="svg")
    except ValueError:  # of its parser
        return found[0]
    data = base64.b64encode(picture.getvalue()).decode()
    style = f"display: inline; margin: 0; vertical-align: -{depth:.1f}pt"
    return f'<img alt="{escape(text)}" style="{style}" src="data:image/svg+xml;base64,{data}">'
