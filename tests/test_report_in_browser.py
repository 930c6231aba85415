"""The reports in headless Chromium, as wide as a desk and as a phone: nothing overflows or fails to load; filters."""

import json
import re
import shutil
import subprocess

import pytest

from spec_repro.base.files import project_root
from spec_repro.headless import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--dump-dom",
]
WIDTHS = {"desk": 1280, "phone": 390}
# A frame has the width of the device; the outer page measures the inner one and leaves the figures in its own text.
FRAME = """<!doctype html><title>frame</title>
<iframe id="inner" src="{page}" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="found"></pre><script>
document.getElementById("inner").onload = async ({{target}}) => {{
  const page = target.contentDocument, root = page.documentElement, found = document.getElementById("found");
  const wide = [...page.querySelectorAll("body *")].filter(
    (item) => !item.closest(".wide, pre") && item.getBoundingClientRect().right > root.clientWidth + 1);
  const images = [...page.images], lazy = images.filter((item) => item.loading === "lazy").length;
  for (const item of images) item.loading = "eager";
  const ended = (item) => new Promise((done) => {{ item.onload = item.onerror = done; }});
  await Promise.all(images.filter((item) => !item.complete).map(ended));
  const drawn = (item) => item.getClientRects().length;
  const seen = () => [...page.querySelectorAll("tr[data-verdict]")].filter(drawn).length;
  const press = (choice) => page.querySelector(choice)?.click();
  const form = page.querySelector(".filters"), tell = () => form.dispatchEvent(new Event("input"));
  const steps = {{}};
  if (form) {{
    press("button[data-verdict=differs][data-whose=own]");
    steps.pressed = [seen(), page.querySelector("button[data-verdict=differs][data-whose=own] b").textContent * 1];
    press("button[data-kind=stand-in]");
    const both = "tr[data-verdict=differs][data-whose=own][data-kinds*=stand-in]";
    steps.kind = [seen(), page.querySelectorAll(both).length];
    press("button[type=reset]");
    await new Promise((done) => setTimeout(done, 50));
    steps.reset = [[...page.querySelectorAll(".card")].filter((item) => item.hidden).length, 0];
    form.elements.words.value = "no such words"; tell();
    steps.words = [[...page.querySelectorAll(".card")].filter((item) => !item.hidden).length, 0];
    form.elements.words.value = ""; form.elements.figure.selectedIndex = 1; tell();
    steps.figure = [[...page.querySelectorAll(".card")].filter((item) => !item.hidden).length, 1];
    form.elements.figure.selectedIndex = 0; tell();
  }}
  const links = [...page.querySelectorAll('a[href^="#"]')].map((item) => item.getAttribute("href").slice(1));
  found.textContent = JSON.stringify({{
    width: root.clientWidth, scroll: root.scrollWidth, wide: wide.map((item) => item.outerHTML.slice(0, 120)),
    images: images.length, lazy, steps, silent: images.filter((item) => !item.alt.includes(" ")).length,
    broken: images.filter((item) => !item.complete || !item.naturalWidth).length,
    dead: links.filter((name) => !page.getElementById(name)), sections: page.querySelectorAll("section").length,
  }});
}};
</script>"""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (.ci/run installs Debian's)")


def look(folder, width, page="report.html"):
    """What the browser finds on a page of ``folder`` at ``width`` pixels, and what it writes to its console."""
    (folder / "frame.html").write_text(FRAME.format(width=width, page=page), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, "--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}"]
    seen = subprocess.run([*command, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="found">(.*?)</pre>', seen.stdout, re.DOTALL)
    assert found, seen.stderr[-2000:]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), [
        line for line in seen.stderr.splitlines() if "CONSOLE" in line
    ]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The report of the committed results and that of a profile without any."""
    room = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(project_root() / "results" / "reference" / "mini", room / "mini")
        patch.setenv("SPEC_RESULTS", str(room))
        return {profile: report.write_report(profile)[1].parent for profile in ("mini", "paper")}


def sound(found, console, device):
    assert console == []
    assert found["width"] <= WIDTHS[device]
    assert found["scroll"] <= found["width"], found["wide"]
    assert found["wide"] == []
    assert (found["broken"], found["silent"]) == (0, 0)
    assert found["lazy"] == found["images"]
    assert found["dead"] == []


@pytest.mark.parametrize("profile", ["mini", "paper"])
@pytest.mark.parametrize("device", WIDTHS)
def test_the_index_renders_without_overflow_or_errors_and_filters(reports, profile, device):
    found, console = look(reports[profile], WIDTHS[device])
    sound(found, console, device)
    assert found["sections"] >= 24
    assert (found["images"] > 100) == (profile == "mini")
    assert len(found["steps"]) == 5
    assert all(shown == expected for shown, expected in found["steps"].values()), found["steps"]
    assert (reports[profile] / "report.html").stat().st_size < 1_000_000


@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("name", ["fig02", "table2"])
def test_a_page_renders_without_overflow_or_errors(reports, name, device):
    found, console = look(reports["mini"], WIDTHS[device], f"pages/{name}.html")
    sound(found, console, device)
    assert found["sections"] >= 3


def test_an_overflow_a_broken_picture_and_an_error_would_be_noticed(tmp_path):
    text = (
        "<!doctype html><body><section style='width: 2000px'>wide</section><img src='data:image/png;base64,AAAA'>"
        "<a href='#nowhere'>dead</a><script>console.error('oh')</script></body>"
    )
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    found, console = look(tmp_path, 390)
    assert found["scroll"] > 390
    assert len(found["wide"]) == 1
    assert (found["broken"], found["dead"]) == (1, ["nowhere"])
    assert any("oh" in line for line in console)
