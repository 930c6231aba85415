"""The tables of the pages are those that the experiments and the benchmark figures give."""

import re
import runpy

from spec_repro.base.files import project_root
from spec_repro.headless.experiments import load_experiments

ROOT = project_root()
REFERENCE = ROOT / "results" / "reference" / "mini"
RENDER = runpy.run_path(str(ROOT / "scripts" / "render_tables.py"))


def test_tables_are_current():
    stale = [path.name for path, text in RENDER["rendered"](ROOT).items() if path.read_text("utf-8") != text]
    assert stale == [], "run: make tables"


def test_every_experiment_and_data_set_stands_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = RENDER["experiments"](REFERENCE)
    for item in load_experiments().values():
        assert f"](notebooks/{item.path.name}) ([YAML](notebooks/{item.path.stem}.yml))" in table
        assert all(f"`make {name}`" in table for name in (item.name, *item.aliases))
    held, differs, *_ = map(int, re.search(r"\*\*all\*\* .*?\*\*(\d+) / (\d+) / (\d+) / (\d+) / (\d+)", table).groups())
    assert held > 40
    assert 0 < differs < held
    assert [name for name in ("afhq", "ffhq", "imagenet", "coco", "wikitext") if f"| `{name}` |" not in text] == []
    assert text.count("<td width=") == RENDER["gallery"](REFERENCE).count("<td width=") > 15


def test_every_table_has_its_place_and_a_changed_figure_is_noticed(tmp_path):
    (tmp_path / "benchmarks").mkdir()  # without figures and results
    for name in ("README.md", "benchmarks/README.md"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    pages = RENDER["rendered"](tmp_path)
    assert pages[tmp_path / "README.md"].count("](notebooks/") >= 20
    assert pages[tmp_path / "benchmarks/README.md"] != (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
