"""The tables of the pages are those that the experiments and the benchmark figures give."""

import re
import runpy
from dataclasses import replace

from spec_repro.base.files import project_root
from spec_repro.headless.experiments import load_experiments

ROOT = project_root()
REFERENCE = ROOT / "results" / "reference" / "mini"
RENDER = runpy.run_path(str(ROOT / "scripts" / "render_tables.py"))


def test_tables_are_current():
    stale = [path.name for path, text in RENDER["rendered"](ROOT).items() if path.read_text("utf-8") != text]
    assert stale == [], "run: make tables"


def test_every_experiment_and_data_set_stands_in_a_readme():
    text, notebooks = ((ROOT / name / "README.md").read_text(encoding="utf-8") for name in ("", "notebooks"))
    table = RENDER["experiments"](REFERENCE)
    for item in load_experiments().values():
        assert f"]({item.path.name}) ([YAML]({item.path.stem}.yml))" in table
        assert all(f"`make {name}`" in table for name in (item.name, *item.aliases))
    held, differs, *_ = map(int, re.search(r"\*\*all\*\* .*?\*\*(\d+) / (\d+) / (\d+) / (\d+) / (\d+)", table).groups())
    assert held > 40
    assert 0 < differs < held
    assert [name for name in ("afhq", "ffhq", "imagenet", "coco", "wikitext") if f"| `{name}` |" not in text] == []
    assert notebooks.count("<td width=") == RENDER["gallery"](REFERENCE).count("<td width=") > 15


def test_every_table_has_its_place_and_a_changed_figure_is_noticed(tmp_path):
    for name in ("README.md", "notebooks/README.md", "benchmarks/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)  # without figures and results
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    pages = RENDER["rendered"](tmp_path)
    assert pages[tmp_path / "notebooks/README.md"].count(".ipynb) ([YAML](") >= 20
    assert pages[tmp_path / "benchmarks/README.md"] != (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")


def test_the_readme_stays_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert len(text.encode()) <= 22_000


def test_the_paragraph_on_laptops_has_the_numbers_of_the_card(monkeypatch):
    fig03 = load_experiments()["fig03"]
    card = {"data": "1,000 rows", "models": "CLIP", "device": "CPU", "minutes": 12.4, "memory": "8 GB"}
    laptop = RENDER["laptop"].__globals__
    monkeypatch.setitem(laptop, "load_experiments", lambda: {"fig03": replace(fig03, cards={"laptop": card})})
    assert "1,000 rows; CLIP; CPU, about 12 min with the download, 8 GB" in RENDER["laptop"]()
    monkeypatch.setitem(laptop, "load_experiments", lambda: {"fig03": replace(fig03, cards={})})
    assert RENDER["laptop"]() == ""
