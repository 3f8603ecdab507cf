"""Figures of the further questions in a real browser: seen in the dark, read on a phone, saved."""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from analysis.analyse import analyse
from analysis.storage import Store
from tests.analysis.conftest import make_rows
from tests.analysis.test_adaptation import CONTROL, PULSE, SWAP, write_family

FIGURE = "#after_swap"
CONTRASTS = """(() => {
  const bright = (colour) => { // relative luminance, WCAG 2.2
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const paper = bright(getComputedStyle(document.body).backgroundColor);
  const contrast = (colour) => { const l = bright(colour); return (Math.max(l, paper) + .05) / (Math.min(l, paper) + .05); };
  const all = [...document.querySelectorAll('FIGURE svg *')].filter((e) => !e.closest('defs'));
  const texts = all.filter((e) => e.tagName === 'text').map((e) => contrast(getComputedStyle(e).fill));
  const drawn = (e) => getComputedStyle(e).stroke;
  const isPaperOrGrid = (e) => ['#ffffff', '#e4e4e4'].includes(e.getAttribute('stroke'));
  const lines = all.filter((e) => e.tagName === 'path' && drawn(e) !== 'none' && !isPaperOrGrid(e)).map((e) => contrast(drawn(e)));
  return [texts.length, Math.min(...texts), lines.length, Math.min(...lines)];
})()""".replace("FIGURE", FIGURE)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    store = Store(tmp_path_factory.mktemp("swapped"))
    for trial in (CONTROL, SWAP, PULSE):
        write_family(store, make_rows, trial, [4, 6])
    analyse(store, ("cka",), num_permutations=99, num_dispersion_permutations=9)
    return Path(store.base) / "report.html"


@pytest.mark.parametrize("dark", [False, True])
def test_ink_is_seen_in_light_and_dark(opened, report, dark):
    num_texts, text, num_lines, line = opened(report, dark=dark).value(CONTRASTS)
    assert num_texts > 20
    assert num_lines > 10
    assert text > 4.5  # WCAG 2.2, 1.4.3
    assert line > 3  # 1.4.11


def test_panels_stack_on_a_phone_at_a_size_that_is_read(opened, report):
    page = opened(report, width=390, height=844, phone=True)
    panels = page.value(f"[...document.querySelectorAll('{FIGURE} .panel')].map((p) => p.getBoundingClientRect().x)")
    assert len(panels) == 2
    assert len(set(panels)) == 1
    assert page.value("document.documentElement.scrollWidth") <= 390
    heights = page.value(f"[...document.querySelectorAll('{FIGURE} .panel text')].map((t) => Math.max(...(({{width, height}}) => "
                         "t.hasAttribute('transform') ? [width] : [height])(t.getBoundingClientRect())))")  # fmt: skip
    assert min(heights) > 9


def test_what_is_saved_holds_all_panels_the_key_and_the_rows(opened, report, tmp_path):
    page = opened(report)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.press(f"{FIGURE} a.data")
    page.press(f"{FIGURE} .save")
    files = tmp_path / "after_swap.csv", tmp_path / "after_swap.svg"
    end = time.monotonic() + 20
    while not all(file.exists() for file in files) and time.monotonic() < end:
        time.sleep(0.1)
    assert {"mean", "low", "high", "num_families"} <= set(pd.read_csv(files[0]))
    saved = ElementTree.fromstring(files[1].read_text())
    num_drawn = page.count(f"{FIGURE} .panel svg, {FIGURE} .key svg")
    assert len(saved.findall("{http://www.w3.org/2000/svg}svg")) == num_drawn >= 4
