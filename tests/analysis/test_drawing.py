"""Figures of matplotlib as charts of the page."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from analysis import drawing
from analysis.drawing import Drawing, charts
from analysis.figures import canvas, finish, panels
from tests.analysis.drawn import SVG, ElementTree, check

CAPTION = "Mean over 3 families, 95 % intervals."
SEES = "A line that climbs says that it climbs, which is all there is."


def lines(num_panels: int = 2, title: str = "x < y & z", num_marks: int = 3) -> Drawing:
    figure, axes = panels(num_panels)
    x = np.arange(num_marks)
    for index, panel in enumerate(axes):
        panel.errorbar(x, x + index, yerr=0.3, color="#000000", marker="o", markeredgecolor="white", capsize=2)
        panel.fill_between(x, x, x + 1.0, facecolor="none", edgecolor="#0072B2", hatch="////", linewidth=0, alpha=0.25)
        panel.set_title(title, fontsize=9, color="#222222", loc="left")
        panel.set_ylabel("height" + "er" * 20 * index, fontsize=9)
    handles = [Line2D([], [], color="#000000", marker="o", label="controls"), Line2D([], [], color="#0072B2", label="a < b" + " gap" * 9)]
    return finish(figure, axes, handles, "A title: of two lines", pd.DataFrame({"x": x}))


def test_a_figure_has_words_rows_twins_and_the_colours_of_the_page():
    drawn = {"one": (lines(), "One", SEES, CAPTION), "two": (lines(3), "Two", SEES, CAPTION), "none": (None, "", "", "")}
    found = charts(drawn)
    check(found, {"one", "two"})
    assert [len(chart.panels) for chart in found] == [2, 3]
    assert "x &lt; y &amp; z" in found[0].panels[0].svg
    page = found[0].html()
    assert "download='one.csv.gz'" in page
    assert page.count("<svg") == 4


def test_a_colour_that_no_sheet_translates_is_noticed():
    drawn = lines()
    drawn.panels[0].plot([0, 1], [1, 1], color="#123456")
    with pytest.raises(AssertionError, match=r"chart.css translates no stroke \{'#123456'\}"):
        check([drawn.chart("one", "One", SEES, CAPTION)], {"one"})


def test_an_axis_without_a_label_is_noticed():
    drawn = lines()
    drawn.panels[1].set_ylabel("")
    with pytest.raises(AssertionError, match="without a label"):
        check([drawn.chart("one", "One", SEES, CAPTION)], {"one"})


def boxes(svg: str) -> tuple[float, float, float, float]:
    return tuple(map(float, re.search(r'viewBox="([^"]+)"', svg)[1].split()))


def test_panels_are_of_one_size_and_hold_what_is_theirs():
    """Text and marks lie within the box, and nothing of the panel beside it is in it."""
    chart = lines().chart("one", "One", SEES, CAPTION)
    sizes = {boxes(panel.svg)[2:] for panel in chart.panels}
    assert len(sizes) == 1
    for panel in chart.panels:
        left, top, width, height = boxes(panel.svg)
        texts = re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"', panel.svg)
        assert len(texts) > 5
        for x, y in texts:
            assert left <= float(x) <= left + width
            assert top <= float(y) <= top + height
    for entry in chart.key:
        left, top, width, height = boxes(entry)
        (x, y) = (float(place) for place in re.search(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"', entry).groups())
        assert left < x < left + width
        assert top + 8 < y < top + height - 3  # room for the letters above and below the line that they stand on
        mark = float(re.search(r'd="M ([\d.]+)', entry.partition("</defs>")[2] or entry)[1])
        assert left < mark < x


def test_the_same_figure_gives_the_same_bytes():
    first, again = (lines().chart("one", "One", SEES, CAPTION) for _ in range(2))
    assert first.html() == again.html()
    assert first.file() == again.file()
    assert first.png == again.png


def test_very_many_marks_are_a_bitmap_between_axes_that_are_none(monkeypatch):
    monkeypatch.setattr(drawing, "MAX_SVG_BYTES", 60_000)
    few, many = (lines(num_marks=num).chart("one", "One", SEES, CAPTION) for num in (3, 2000))
    assert "<image" not in few.panels[0].svg
    for panel in many.panels:
        assert panel.svg.count("<image") >= 1
        assert 'class="plot marks"' in panel.svg
        assert "height" in panel.svg
        assert len(panel.svg) < 200_000


def test_pictures_are_one_sheet_without_the_title_that_the_page_has():
    figure = canvas(3, 2)
    for panel in figure.subplots(1, 2):
        panel.imshow(np.eye(4), cmap="gray", interpolation="none")
        panel.set_title("a picture")
    figure.suptitle("the title")
    chart = Drawing(figure, pd.DataFrame({"sample": [1, 2]})).chart("sheet", "Pictures", SEES, CAPTION)
    check([chart], {"sheet"})
    (panel,) = chart.panels
    assert panel.svg.count("<image") == 2
    assert panel.svg.count('image-rendering="pixelated"') == 2
    assert panel.svg.count("a picture") == 2
    assert "the title" not in panel.svg
    assert ElementTree.fromstring(chart.file()).find(f"{SVG}text").text == "Pictures"
