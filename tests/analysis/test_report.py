"""The page stands alone and is escaped; the command writes what it says."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from analysis import figures, report_first, tables
from analysis.__main__ import main
from analysis.akp import associations
from analysis.analyse import analyse
from analysis.chart import Chart, Panel, too_large
from analysis.gap_chart import gap_chart
from analysis.html import number
from analysis.measures.generalization import gaps
from analysis.moment_chart import _apart
from analysis.network_map import network_map
from analysis.question import Asked, Found
from analysis.report import _body
from analysis.spreads import spreads
from analysis.swap_grid import by_swap

ROOT = Path(__file__).parents[2]
QUICK = {"num_permutations": 99, "num_dispersion_permutations": 99}
VOID = {"meta", "img", "br", "hr"}


class Balance(HTMLParser):
    """Fails where a tag is closed that is not the innermost open one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def analysed(sweep):
    store = sweep(num_failed=2, diverged={0: 1})
    return store, analyse(store, name="results/<cells>", **QUICK)


def test_the_page_is_one_file_without_network(analysed):
    store, found = analysed
    page = store.read("report.html").decode()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"(src|href)=(?!['\"]?(data:|#))", page)
    assert "http" not in re.sub(r"base64,[^']+", "", page).replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page
    assert found.text in page.replace("&#x27;", "'").replace("&gt;", ">").replace("&lt;", "<")


def test_no_script_but_the_pages_own_may_run(analysed):
    """The policy names the script by its hash, and forbids every request."""
    page = analysed[0].read("report.html").decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not re.search(r"\son\w+=", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_what_is_known_of_families_cannot_leave_its_element(sweep):
    store = sweep(num_failed=1)
    trials = tables.read(store, "trials")
    trials.loc[0, "schedule"] = "0:</script><script>alert(1)</script>/x"
    text = report_first.families(trials, spreads(store, ["cka"]), gaps(tables.read(store, "replicas")))
    assert "<" not in text
    found = json.loads(text)
    assert found[trials.loc[0, "trial"]]["schedule"] == trials.loc[0, "schedule"]
    assert set(found) == set(trials["trial"])


def test_every_chart_says_what_to_see_and_has_its_data_and_a_twin(analysed):
    store, _ = analysed
    page = store.read("report.html").decode()
    figures = re.findall(r"<figure id='(\w+)'.*?</figure>", page, re.DOTALL)
    assert figures == ["gap_against_spread", "gap_and_spread_by_swap", "network_map", "spread_across_the_swap", "predictors_of_the_gap"]
    for name, figure in zip(figures, re.findall(r"<figure id=.*?</figure>", page, re.DOTALL), strict=True):
        assert len(re.search(r"<p class='sees'>(.*?)</p>", figure)[1]) > 40
        assert re.search(r"<figcaption>.*\d+ (stressed )?(families|networks)", figure) or "over 42 families" in figure
        packed = re.search(rf"download='{name}.csv.gz' href='data:application/gzip;base64,([^']+)'", figure)[1]
        rows = pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(packed))))
        assert len(rows) > 0
        twin = ElementTree.fromstring(store.read(f"figures/{name}.svg"))
        assert len(twin.findall("{http://www.w3.org/2000/svg}svg")) == len(re.findall("class='panel( now)?'", figure))


def test_a_point_stands_where_its_numbers_are(sweep):
    """Read back from the drawing by its own ticks."""
    store = sweep(num_families=14, num_replicas=3, widths=(4,))
    spread, gap = spreads(store, ["cka"]), gaps(tables.read(store, "replicas"))
    chart = gap_chart(spread, gap, associations(spread, gap, num_permutations=99))
    svg = chart.panels[0].svg
    across = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="tick" text-anchor="middle">([\d.−]+)</text>', svg)
    up = re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="tick" text-anchor="end">([\d.−]+)</text>', svg)
    read = [np.array([(float(at), float(value.replace("−", "-"))) for at, value in ticks]) for ticks in (across, up)]
    to_spread, to_gap = (np.poly1d(np.polyfit(*ticks.T, 1)) for ticks in read)
    places = re.findall(r'data-f="(\w+)".*?class="point" d="M([\d.]+) ([\d.]+)', svg)
    assert len(places) == 14
    rows = chart.data.set_index("trial")
    for trial, x, y in places:
        assert to_spread(float(x)) == pytest.approx(rows.loc[trial, "spread"], abs=2e-3)
        assert to_gap(float(y) + 4) == pytest.approx(rows.loc[trial, "gap_accuracy"], abs=2e-3)  # ticks stand 4 units below their line


def test_labels_do_not_touch_and_keep_their_order():
    heights = np.array([30.0, 10.0, 12.0, 11.0, 90.0])
    found = _apart(heights)
    assert (np.argsort(found) == np.argsort(heights)).all()
    assert np.diff(np.sort(found)).min() >= 15
    assert found[[1, 4]].tolist() == [10, 90]


def test_the_map_is_exact_where_all_networks_are_landmarks(sweep):
    """Gower: principal coordinates of Euclidean distances; in two dimensions no map of the landmarks is closer in squares."""
    found = network_map(Asked(sweep(num_families=3, num_replicas=3, widths=(4,)), pd.DataFrame(), pd.DataFrame()))
    placed = found.tables["network_map"]
    assert placed["num_landmarks"].tolist() == [9] * 9
    assert np.allclose(placed[["x", "y"]].mean(), 0, atol=1e-9)
    assert abs(np.corrcoef(placed["x"], placed["y"])[0, 1]) < 1e-8
    assert placed["explained"].between(0, 1).all()


def test_a_heat_map_has_a_cell_per_family(sweep):
    """One family per pair and swap epoch here, so that a cell is its mean gap; controls stand in every row of their own."""
    store = sweep(num_families=14, num_replicas=3, widths=(4,))
    gap = gaps(tables.read(store, "replicas"))
    (chart,) = by_swap(Asked(store, gap, spreads(store, ["cka"]))).charts
    of_gap = chart.data[chart.data["quantity"] == "gap_accuracy"].set_index("trial")["value"]
    assert of_gap.to_dict() == pytest.approx(gap.set_index("trial")["gap_accuracy"].to_dict())
    svg = chart.panels[0].svg
    assert svg.count('class="cell"') == 2 * 3 * (1 + 2)
    written = re.search(r'data-f="t000000000001"><rect[^>]*/><text[^>]*>([^<]*)<', svg)[1]
    assert written == f"{of_gap['t000000000001']:.3f}".replace("0.", ".", 1)


def test_what_is_said_fits_the_scheme_in_force(sweep, write):
    """Blocks and lines where families share a control and a swap epoch with others; controls where each has its own."""
    shared = analyse(sweep(), **QUICK)
    store = sweep(num_families=2, num_replicas=3, widths=(4,))
    for control in range(1, 6):
        write(store, num_families=2, num_replicas=3, widths=(4,), first=7 * control, seed=control)
    own = analyse(store, **QUICK)
    for part in ("aligned ranks over families (36 families", "blocks; 6 more", "controls, lines and replicas resampled", "left in"):
        assert part in shared.text
        assert part not in own.text
    for part in (
        "ranks over controls, each the mean of its families (12 families of 3 replicas, 6 controls)",
        "(controls, their families and replicas resampled)",
        "permutations between controls, whose families are averaged; max-T over 1 layer)",
    ):
        assert part in own.text
    page = store.read("report.html").decode()
    for part in ("averaged over the families of each control", "pairs of controls", "exchanges of controls, adjusted"):
        assert part in page
    for part in ("aligned ranks", "lines within controls", "one block"):
        assert part not in page
    table = pd.read_parquet(store.path("analysis/association.parquet"))
    tested = table[table["rho"].notna()]
    assert tested["estimator"].str.startswith("correlation of ranks over controls, each the mean of its families of spread").all()


def test_the_page_has_a_section_per_question_or_says_why_not(analysed):
    store, _ = analysed
    page = store.read("report.html").decode()
    assert "<h2>After the swap</h2>\n<p class='soft'>The table epochs has no file of a stressed family.</p>" in page
    assert "<h2>With size</h2>\n<p class='soft'>No size was varied" in page


def test_a_section_has_its_sentences_figures_and_tables_escaped():
    chart = Chart("f", "t", "sees", "x < y", [Panel("<svg/>")], pd.DataFrame({"x": [1]}))
    found = Found("A < B", ["1 < 2."], {}, [(pd.DataFrame({"n<": ["<i>"]}), "c < d")], charts=[chart])
    section = _body(found, "")
    assert section.startswith("<p>1 &lt; 2.</p>\n<figure")
    assert all(text in section for text in ("x &lt; y", "c &lt; d", "n&lt;", "&lt;i&gt;"))


def test_data_too_large_for_the_page_lie_where_it_says():
    chart = Chart("f", "t", "sees", "c", [Panel("<svg/>")], pd.DataFrame({"x": range(200_001)}))
    assert "<code>analysis/f.parquet</code>" in chart.html()
    assert list(too_large([chart])) == ["f"]
    assert too_large([replace(chart, data=chart.data.head(200_000))]) == {}


def test_a_legend_counts_the_families_of_a_panel():
    rows = pd.DataFrame({"trial": ["a", "b", "c", "a"], "layer": ["block1", "block1", "block1", "head"]})
    assert figures.families_a_panel(rows, ["block1", "head"]) == "1 to 3 a panel"
    assert figures.families_a_panel(rows, ["block1"]) == "3"


def test_the_page_tells_of_failures_and_escapes_text(analysed):
    store, _ = analysed
    page = store.read("report.html").decode()
    assert "&lt;b&gt;no &amp; such data&lt;/b&gt;" in page
    assert "<b>no & such data</b>" not in page
    assert "results/&lt;cells&gt;" in page
    assert "2 families failed" in page
    assert "1 of 168 replicas diverged, in 1 family" in page
    assert "python -m analysis" in page
    assert "commit" in page


def test_what_is_written_is_listed_and_readable(analysed):
    store, found = analysed
    assert set(found.files) == {
        "analysis/spread.parquet", "analysis/association.parquet", "analysis/happy_unhappy.parquet",
        "analysis/annak.parquet", "analysis/predictors.parquet", "analysis/partial.parquet",
        "analysis/network_map.parquet",
        "figures/gap_against_spread.png", "figures/spread_by_moment.png", "report.html",
        "figures/gap_against_spread.svg", "figures/gap_and_spread_by_swap.svg", "figures/network_map.svg",
        "figures/predictors_of_the_gap.svg", "figures/spread_across_the_swap.svg",
    }  # fmt: skip
    for file in found.files:
        assert store.exists(file)
        if file.endswith(".parquet"):
            assert len(pd.read_parquet(store.path(file))) > 0
        if file.endswith(".png"):
            assert store.read(file).startswith(b"\x89PNG")
    assert {"seed", "estimator", "num_families"} <= set(pd.read_parquet(store.path("analysis/association.parquet")))


def test_a_reason_stays_above_its_own_panel():
    reason = "8 families of 4 controls: 24 exchanges, fewer than 100: p cannot be below 0.083"
    row = pd.Series({"layer": "block3", "verdict": "undecided", "reason": reason, "rho": float("nan")})
    figure, (left, right) = figures.panels(2)
    title = left.set_title(figures._answer(row), fontsize=9, loc="left")
    figure.draw_without_rendering()
    assert title.get_window_extent().x1 < right.get_window_extent().x0


def test_running_again_writes_the_same_bytes(sweep):
    store = sweep()
    files = analyse(store, **QUICK).files
    before = {file: store.read(file) for file in files}
    analyse(store, **QUICK)
    assert {file: store.read(file) for file in files} == before


def test_controls_alone_have_no_second_figure(sweep):
    found = analyse(sweep(moments=("end",)), **QUICK)
    assert "figures/gap_against_spread.png" in found.files
    assert "figures/spread_by_moment.png" in found.files  # stressed families, at the end only
    assert analyse(sweep(num_families=1), **QUICK).files.count("figures/spread_by_moment.png") == 0


def test_command_line(sweep, capsys):
    store = sweep()
    assert main([store.base, "--measures", "cka", "--permutations", "99"]) == 0
    out = capsys.readouterr().out
    assert "Verdict: AKP: families with a larger gap_accuracy are more spread" in out.replace("\n", " ")
    assert f"{store.base}/report.html" in out
    assert "block2" in out


def test_a_folder_without_results_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "analysis", str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nothing to analyse" in done.stderr


@pytest.mark.parametrize("bad", [["--measures", "ckaa"], ["--alpha", "2"], ["--permutations", "0"]])
def test_bad_options_are_refused(tmp_path, bad, capsys):
    with pytest.raises(SystemExit) as refusal:
        main([str(tmp_path), *bad])
    assert refusal.value.code == 2
    assert bad[1] in capsys.readouterr().err


def test_analysis_imports_neither_ray_nor_torch():
    script = "import sys, analysis.__main__; sys.exit(bool({'ray', 'torch', 'sweep', 'trainables'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (3.0, "3"), (0.12345, "0.123"), (0.0004, "0.0004"), (7, "7")]
)
def test_number(value, text):
    assert number(value) == text
