"""Pieces of the report's pages: pictures inside the page, cells of tables, and each executed notebook as a page."""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

from spec_repro.base.files import atomic_path

__all__ = ["cell", "embedded", "notebook_page", "thumbnail"]


def cell(text) -> str:
    """Text for one cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def embedded(path: Path) -> str:
    """A picture as a data URI, so that the page is one file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def thumbnail(path: Path) -> str:
    """A small copy of a picture as a data URI."""
    small = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((400, 300))
        picture.convert("RGB").save(small, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(small.getvalue()).decode()


def notebook_page(notebook: Path) -> Path:
    """The executed ``notebook`` as HTML beside it, made anew where it is older; the path, also if there is neither."""
    page = notebook.with_suffix(".html")
    if notebook.is_file() and not (page.is_file() and page.stat().st_mtime >= notebook.stat().st_mtime):
        from nbconvert import HTMLExporter

        text, _ = HTMLExporter(template_name="classic").from_notebook_node(nbformat.read(notebook, as_version=4))
        with atomic_path(page) as path:
            path.write_text(text, encoding="utf-8")
    return page
