"""The tables of the pages are those that the experiments and the benchmark figures give."""

import runpy

from spec_repro.files import project_root

ROOT = project_root()
RENDER = runpy.run_path(str(ROOT / "scripts" / "render_tables.py"))


def test_tables_are_current():
    for path, text in RENDER["rendered"](ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: make tables"


def test_every_table_has_its_place_and_a_changed_figure_is_noticed(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for name in ("README.md", "benchmarks/README.md"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    pages = RENDER["rendered"](tmp_path)  # without any figures
    assert pages[tmp_path / "README.md"].count("](notebooks/") >= 20
    assert pages[tmp_path / "benchmarks/README.md"] != (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
