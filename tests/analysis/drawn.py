"""What every chart of a question must have, whoever drew it."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from analysis.chart import PAGE, Chart

SVG = "{http://www.w3.org/2000/svg}"
CSS = (PAGE / "chart.css").read_text()
TRANSLATED = {kind: set(re.findall(rf'^.*?\[{kind}="(#\w{{6}})"\] {{ {kind}: var\(--', CSS, re.MULTILINE)) for kind in ("fill", "stroke")}
SAYS_INTERVAL = re.compile(r"interval|standard error|least to the largest|one draw each|two standard errors|accessibility")
SAYS_N = re.compile(r"\d|count|number|data have")


def check(charts: Sequence[Chart], expected: set[str]) -> None:
    """Words, rows, twins, labelled axes and colours that follow the page's; no id twice over all charts."""
    assert {chart.name for chart in charts} == expected
    ids: list[str] = []
    for chart in charts:
        page = "".join(panel.svg for panel in chart.panels) + "".join(chart.key)
        assert len(chart.sees) > 40, chart.name
        assert chart.sees.endswith("."), chart.name
        assert chart.caption.endswith("."), chart.name
        assert SAYS_INTERVAL.search(chart.caption), chart.name
        assert SAYS_N.search(chart.caption.replace("95 %", "")), chart.name
        assert len(chart.data), chart.name
        assert not chart.data.columns.duplicated().any(), chart.name
        assert chart.png.startswith(b"\x89PNG"), chart.name
        twin = ElementTree.fromstring(chart.file())
        assert len(twin.findall(f"{SVG}svg")) == len(chart.panels) + len(chart.key), chart.name
        assert "<script" not in page + chart.name
        assert "<style" not in page
        assert "http" not in page
        for kind in ("fill", "stroke"):
            colours = set(re.findall(rf' {kind}="(#\w+)"', page))
            assert colours <= TRANSLATED[kind], f"{chart.name}: page/chart.css translates no {kind} {colours - TRANSLATED[kind]}"
            assert not re.search(rf"{kind}:\s*#", page), chart.name
        if not any("<image" in panel.svg for panel in chart.panels):
            for panel in chart.panels:
                assert 'transform="rotate(-90' in panel.svg, f"{chart.name}: a y axis without a label"
        ids += re.findall(r' id="([^"]+)"', page)
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)) <= {(i, "") for i in ids} | {("", i) for i in ids}, chart.name
    assert len(ids) == len(set(ids))
