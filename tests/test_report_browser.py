"""The report in a real browser: its width, its pictures, its type and contrast, what it asks for, how it prints."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nelbo.doctor import Diagnosis, Finding
from nelbo.report import Request
from nelbo.report.gathered import Facts, gather
from nelbo.report.page import page
from nelbo.training import api, events
from nelbo.training.recipe import Recipe
from nelbo.training.store import Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (360, 768, 1280)  # a phone, a tablet, a screen
SMALLEST_PX = 10.0
CONTRAST = 4.5  # WCAG 2.2, AA, for text of any size
LONG = "a_name_without_any_place_to_break_it_" * 4

MEASURE = """
const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const luminance = c => { const [r, g, b] = c.map(v => linear(v / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const numbers = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const behind = (element, w) => { for (let e = element; e; e = e.parentElement) {
    const c = numbers(w.getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c.slice(0, 3); }
  return [255, 255, 255]; };
function measure(frame) {
  const w = frame.contentWindow, d = frame.contentDocument, root = d.documentElement, out = {};
  out.dark = w.matchMedia('(prefers-color-scheme: dark)').matches;
  out.overflow = root.scrollWidth - root.clientWidth;
  out.wide = [...d.body.querySelectorAll('*')].filter(e => !e.closest('.scroll, .skip, svg svg')
    && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => `${e.tagName}.${e.getAttribute('class')}`);
  out.images = d.images.length;
  out.broken = [...d.images].filter(i => !i.complete || !i.naturalWidth || !i.getBoundingClientRect().width).length;
  out.fetched = w.performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'));
  out.texts = 0; out.small = []; out.pale = [];
  const walk = d.createTreeWalker(d.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const e = node.parentElement, style = w.getComputedStyle(e);
    if (!node.data.trim() || e.closest('script, style')) continue;
    const svg = e.closest('svg'), ink = numbers(svg ? style.fill : style.color), paper = behind(e, w);
    const scale = svg ? e.getScreenCTM().a : 1, size = parseFloat(style.fontSize) * scale;
    const [a, b] = [luminance(ink), luminance(paper)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    out.texts++;
    if (size < SMALLEST) out.small.push([size, node.data.trim().slice(0, 40)]);
    if (ratio < CONTRAST) out.pale.push([ratio, node.data.trim().slice(0, 40)]);
  }
  const skip = d.querySelector('.skip'); if (skip) { skip.focus(); out.skip = skip.getBoundingClientRect().left; }
  return out;
}
onload = () => { const found = {}; for (const f of document.querySelectorAll('iframe')) found[f.id] = measure(f);
  document.getElementById('found').textContent = JSON.stringify(found); };
"""

BAD = """<!DOCTYPE html><html><body style="background:white"><p style="color:#aaa">pale</p>
<p style="font-size:6px">small</p><div style="width:2000px">wide</div><img src="missing.png" alt="missing">
<img src="http://nowhere.invalid/picture.png" alt="of another computer">
<script>console.error("heard")</script></body></html>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The browser's path; skips the test, and says why, where there is none."""
    named = os.environ.get("NELBO_BROWSER")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(
            f"no browser here ({named or ', '.join(BROWSERS)}); make browser installs one, NELBO_BROWSER names one"
        )
    return found


def run(browser: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The browser without a window, which finds no other computer."""
    quiet = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files", "--enable-logging=stderr",
             f"--user-data-dir={folder / 'profile'}")  # fmt: skip
    return subprocess.run(
        [browser, *quiet, *arguments], capture_output=True, text=True, timeout=120, check=True
    )


@pytest.fixture(scope="module")
def pages(
    browser: str,
    reported: tuple[Run, Facts],
    tiny_recipe: Callable[..., Recipe],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with the report of one run, of two of which one has too long names, and a page that is bad."""
    folder = tmp_path_factory.mktemp("browser")
    other = api.train(tiny_recipe({"epochs": 2, "objective.beta": 4.0}), runs=folder, name=LONG, device="cpu")
    facts = reported[1]
    long = gather(other, Request(samples=10, pictures=["samples"], device="cpu"), events.quiet)
    finding = Finding(LONG, "serious", LONG, LONG, f"nelbo train {LONG} --{LONG}", LONG)
    data = facts.environment["data"] | {"name": LONG, "class_names": [LONG] * 3}
    long = dataclasses.replace(
        long,
        changes=[(LONG, LONG, LONG)],
        started_from=facts.recipe,
        promise=LONG,
        environment=facts.environment | {"data": data, "command": LONG},
        diagnosis=Diagnosis(LONG, "run", (finding, finding), (), {LONG: LONG}),
        left_out={LONG: LONG},
        not_measured=LONG,
    )
    (folder / "one.html").write_text(page([facts]), encoding="utf-8")
    (folder / "two.html").write_text(page([long, facts]), encoding="utf-8")
    (folder / "bad.html").write_text(BAD, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def measured(browser: str, pages: Path) -> dict[str, Any]:
    """What the browser measured of every page, at every width, in light and in dark; and its messages."""
    frames = [
        f'<iframe id="{name}-{width}-{scheme}" src="{name}.html" style="width:{width}px;height:800px;border:0;'
        f'color-scheme:{scheme}"></iframe>'
        for name in ("one", "two", "bad")
        for width in WIDTHS
        for scheme in ("light", "dark")
    ]
    script = MEASURE.replace("SMALLEST", str(SMALLEST_PX)).replace("CONTRAST", str(CONTRAST))
    outer = f'<!DOCTYPE html><html><body>{"".join(frames)}<pre id="found"></pre><script>{script}</script></body></html>'
    (pages / "outer.html").write_text(outer, encoding="utf-8")
    done = run(browser, pages, "--dump-dom", (pages / "outer.html").as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    assert found[1], done.stderr[-2000:]
    table: dict[str, Any] = json.loads(html.unescape(found[1]))
    return table | {"messages": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}


PLACES = [
    (name, width, scheme) for name in ("one", "two") for width in WIDTHS for scheme in ("light", "dark")
]


@pytest.mark.parametrize(("name", "width", "scheme"), PLACES)
def test_a_page_fits_is_readable_and_complete(name, width, scheme, measured):
    found = measured[f"{name}-{width}-{scheme}"]
    assert found["dark"] == (scheme == "dark")
    assert (found["overflow"], found["wide"]) == (0, [])
    assert found["images"] >= 10
    assert found["broken"] == 0
    assert found["fetched"] == []
    assert found["texts"] > 200
    assert found["small"] == []
    assert found["pale"] == []
    assert found["skip"] >= 0, "the link that skips to the content does not show when it has the focus"


def test_the_browser_would_have_seen_a_bad_page(measured):
    found = measured["bad-360-light"]
    assert found["overflow"] > 1000
    assert found["broken"] == 2
    assert found["fetched"] == ["http://nowhere.invalid/picture.png"]
    assert [text for _, text in found["small"]] == ["small"]
    assert [text for _, text in found["pale"]] == ["pale"]
    assert sum("heard" in line for line in measured["messages"]) == len(WIDTHS) * 2


def test_the_console_stays_silent(measured):
    assert [
        line for line in measured["messages"] if "bad.html" not in line and "missing.png" not in line
    ] == []


def test_it_prints_on_several_pages_of_paper(browser, pages):
    for name in ("one", "two"):
        file = pages / f"{name}.pdf"
        run(
            browser,
            pages,
            "--no-pdf-header-footer",
            f"--print-to-pdf={file}",
            (pages / f"{name}.html").as_uri(),
        )
        content = file.read_bytes()
        assert content.startswith(b"%PDF-")
        boxes = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", content)
        assert 4 <= len(boxes) <= 60
        assert {(round(float(a)), round(float(b))) for a, b in boxes} <= {(595, 842), (595, 841), (594, 841)}
