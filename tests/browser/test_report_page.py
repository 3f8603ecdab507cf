"""The page in a real browser: it loads without a request or a complaint, and pointing, clicking, filtering and saving do what they say."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis.analyse import analyse
from analysis.storage import Store
from tests.analysis.conftest import write_sweep
from tests.browser.made_up import SMALL, THOUSAND, write_without_measurement

CENTRAL = "#gap_against_spread .panel.now"
SECTIONS = "[...document.querySelectorAll('section')].map((s) => s.innerText.split('\\n').slice(1).join(' ').trim())"
STRESSED = "t000000000008"  # the second tree's first stressed family, from t000000000007


def written(folder: Path, num_dispersion_permutations: int = 99, **options: object) -> Path:
    """The report of a synthetic sweep."""
    store = Store(folder)
    write_sweep(store, **options)
    permutations = SMALL | {"num_dispersion_permutations": num_dispersion_permutations}
    analyse(store, ("cka",), name="results/<i>sweep</i>", **permutations)
    return folder / "report.html"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("sweep"), diverged={3: 1}, num_failed=1)


def test_the_first_screen_has_the_answer_of_every_layer_and_its_picture(opened, report):
    page = opened(report)
    assert page.value("document.querySelector('.now .verdict').textContent") == "AKP"
    for selector in (".now .verdict", ".now .layers tbody tr:last-child", f"{CENTRAL} svg"):
        assert page.value(f"document.querySelector({selector!r}).getBoundingClientRect().bottom") < 800, selector
    assert page.count(f"{CENTRAL} [data-f]") == 42
    assert "results/<i>sweep</i>" in page.value("document.querySelector('h1').textContent")
    assert page.count("h1 i") == 0


def test_pointing_at_a_family_tells_its_schedule(opened, report):
    page = opened(report)
    x, y = page.middle(f"{CENTRAL} [data-f={STRESSED}] .point")
    page.hover(x + 3, y)  # beside it: the nearest is taken
    told = page.value("document.getElementById('tip').textContent")
    assert "0:relu1/cross_entropy 2:tanh/cross_entropy" in told
    assert STRESSED in told
    assert "spread in block1" in told
    page.hover(5, 5)
    assert page.value("document.getElementById('tip').hidden")


def test_a_click_isolates_a_family_and_its_control_everywhere(opened, report):
    page = opened(report)
    page.press(f"{CENTRAL} [data-f={STRESSED}] .point")
    for figure in ("gap_against_spread", "network_map"):
        panel = f"#{figure} .panel.now"
        assert page.count(f"{panel} [data-f]:not(.dim)") == 2, figure
        assert page.count(f"{panel} .near") == 2
        assert page.count(f"{panel} [data-f=t000000000007].near") == 1
    assert page.count("#gap_and_spread_by_swap .panel.now .cell.near") >= 2
    assert f"{STRESSED} and its control" in page.value("document.getElementById('chosen').textContent")
    page.press("#all")
    assert page.count(".dim") == 0
    assert page.value("document.getElementById('chosen').textContent") == ""


def test_filters_hide_families_of_a_kind_and_those_without_the_words(opened, report):
    page = opened(report)
    page.press("[data-hide=loss]")
    assert page.count(f"{CENTRAL} [data-f]:not(.hid)") == 42 - 12
    page.press("[data-hide=loss]")
    assert page.count(f"{CENTRAL} .hid") == 0
    page.value("(() => { const w = document.getElementById('words'); w.value = 'TANH 4:'; w.dispatchEvent(new Event('input')); })()")
    assert page.count(f"{CENTRAL} [data-f]:not(.hid)") == 12  # activation or both, at epoch 4, in six trees
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    assert page.count(".hid") == 0


def test_a_layer_and_a_reading_are_chosen_everywhere_at_once(opened, report):
    page = opened(report)
    shown = "[...document.querySelectorAll('#gap_against_spread .panel.now')].map((p) => [p.dataset.layer, p.dataset.by])"
    first = page.value(shown)
    assert len(first) == 1
    assert first[0][1] == "gap_accuracy"
    other = "block1" if first[0][0] == "block2" else "block2"
    page.press(f".now .layers button[value={other}]")
    assert page.value(shown) == [[other, "gap_accuracy"]]
    assert page.count(f"#network_map .now[data-layer={other}]") == 1
    page.press("[data-set=by][value=test_error]")
    assert page.value(shown) == [[other, "test_error"]]
    assert page.value("document.querySelector('.answer > .now').dataset.by") == "test_error"


def saved(page, button: str, file: Path) -> bytes:
    """What a button has the browser download; the file is removed again."""
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(file.parent))
    page.press(button)
    end = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < end, list(file.parent.iterdir())
        time.sleep(0.05)
    found = file.read_bytes()
    file.unlink()
    return found


def test_data_can_be_saved(opened, report, tmp_path):
    rows = pd.read_csv(io.BytesIO(saved(opened(report), "#gap_against_spread a.data", tmp_path / "gap_against_spread.csv")))
    assert len(rows) == 42 * 2
    assert {"spread", "spread_se", "gap_accuracy", "gap_accuracy_se", "schedule"} <= set(rows)


def test_a_drawing_is_saved_as_it_is_shown(opened, report, tmp_path):
    """With what is hidden left out, all panels that are shown, and the same if asked twice."""
    page = opened(report)
    page.press("[data-hide=loss]")
    layer = page.value(f"document.querySelector('{CENTRAL}').dataset.layer")
    one, both = tmp_path / f"gap_against_spread_{layer}.svg", tmp_path / "network_map.svg"
    first, again = (saved(page, "#gap_against_spread .save", one) for _ in range(2))
    assert first == again
    one.write_bytes(first)
    both.write_bytes(saved(page, "#network_map .save", both))  # both layers beside each other, on a wide screen
    shown = "[...document.querySelectorAll('[data-f]')].filter((mark) => getComputedStyle(mark).display !== 'none').length"
    assert opened(one).value(shown) == 42 - 12
    drawn = opened(both)
    assert drawn.value(shown) == 2 * (42 - 12)
    edges = "[...document.querySelectorAll('svg > svg')].map((one) => [+one.getAttribute('x'), +one.getAttribute('width')])"
    (x, width), (further, _) = drawn.value(edges)  # beside each other, as on the page
    assert x == 0
    assert further >= width


def test_keys_do_what_the_mouse_does(opened, report):
    page = opened(report)

    def key(name: str) -> None:
        page.call("Input.dispatchKeyEvent", type="keyDown", key=name)

    def told() -> str:
        return page.value("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")

    page.value(f"document.querySelector('{CENTRAL} svg').focus()")
    assert page.value(f"document.activeElement === document.querySelector('{CENTRAL} svg')")
    assert told() == ""
    key("ArrowRight")
    first = told()
    assert "spread in block1" in first
    key("ArrowRight")
    assert told() not in ("", first)
    key("ArrowLeft")
    assert told() == first
    key("End")
    key("ArrowRight")
    last = told()
    assert last not in ("", first)
    places = page.value(
        f"[...document.querySelectorAll('{CENTRAL} .point')].map((p) => [p.closest('[data-f]').classList.contains('pointed'), "
        "p.getBoundingClientRect().x])"
    )
    assert max(places, key=lambda place: place[1])[0], "the last one is the one furthest to the right"
    key("Enter")
    assert page.count(f"{CENTRAL} [data-f]:not(.dim)") <= 2
    key("Escape")
    assert page.count(".dim") == 0
    assert told() == ""


def test_a_choice_that_a_figure_lacks_leaves_it_as_it_is(opened, report):
    """No figure goes blank, and its own buttons say what it shows."""
    page = opened(report)
    shown = "[...document.querySelectorAll('#ID .panel.now')].map((p) => [p.dataset.layer, p.dataset.by ?? ''])"
    central, beside = shown.replace("ID", "gap_against_spread"), shown.replace("ID", "network_map")
    pressed = "[...document.querySelectorAll('#network_map [data-set=layer][aria-pressed=true]')].map((b) => b.value)"
    before = page.value(central)[0][0]
    other = "block1" if before == "block2" else "block2"
    page.value(
        f"(() => {{ for (const gone of ['#gap_against_spread .panel[data-layer={other}][data-by=test_error]', "
        f"'#network_map .panel[data-layer={other}]', '#network_map [value={other}]']) document.querySelector(gone).remove(); }})()"
    )
    page.press("[data-set=by][value=test_error]")
    page.press(f".now .layers button[value={other}]")
    assert page.value(central) == [[other, "gap_accuracy"]]  # the only panel of that layer
    assert page.value(beside) == [[before, ""]]
    assert page.value(pressed) == [before]
    page.press(f".now .layers button[value={before}]")
    assert page.value(central) == [[before, "test_error"]]


def test_selecting_words_of_a_plot_isolates_nothing(opened, report):
    page = opened(report)
    page.press(f"{CENTRAL} [data-f={STRESSED}] .point")
    x, y = page.middle(f"{CENTRAL} text.title")
    for kind, dx in (("mousePressed", -15), ("mouseMoved", 15), ("mouseReleased", 15)):
        page.call("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y, button="left", buttons=1, clickCount=1)
    assert page.value("getSelection().toString()") != ""
    assert page.count(f"{CENTRAL} .near") == 2  # as before


def test_a_cell_of_several_families_isolates_all_of_them(opened, report):
    page = opened(report)
    cell = "#gap_and_spread_by_swap .panel.now .cell:not(:first-of-type)"
    two = f"t000000000001 {STRESSED}"
    page.value(f"document.querySelector({cell!r}).setAttribute('data-f', {two!r})")
    page.press(f"{cell} rect")
    assert page.count(f"{CENTRAL} .near") == 4
    assert "2 families and their controls" in page.value("document.getElementById('chosen').textContent")
    page.press(f"{cell} rect")
    assert page.count(".dim") == 0


def test_a_link_leads_to_a_heading_that_is_seen_and_nothing_moves_by_itself(opened, report):
    page = opened(report)
    page.press("nav a[href='#the-map-of-all-networks']")
    page.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    top, bar = page.value(
        "['#the-map-of-all-networks h2', '#bar'].map((one) => document.querySelector(one).getBoundingClientRect())"
        ".map((box, index) => index ? box.bottom : box.top)"
    )
    assert bar <= top < 200
    moving = "[...document.querySelectorAll('*')].map((one) => getComputedStyle(one)).filter((s) => s.transitionDuration !== '0s' || "
    assert page.value(f"{moving}s.animationName !== 'none' || s.scrollBehavior !== 'auto').length") == 0


@pytest.mark.parametrize("options", [{"width": 390, "height": 844, "phone": True}, {"dark": True}, {"width": 800, "media": "print"}])
def test_it_fits_a_phone_darkness_and_paper(opened, report, options):
    page = opened(report, **options)
    width = options.get("width", 1280)
    assert page.value("document.documentElement.scrollWidth") <= width
    ink, paper = page.value("(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()")
    bright = sum(json.loads(paper.replace("rgb(", "[").replace(")", "]")))
    assert (bright < 3 * 60) == ("dark" in options)
    assert ink != paper
    if "media" in options:
        assert page.count(".panel") == page.value("[...document.querySelectorAll('.panel')].filter((p) => p.offsetHeight > 0).length")
        assert page.value("getComputedStyle(document.getElementById('words')).display") == "none"


def test_a_sweep_of_failures_only_says_so(opened, tmp_path):
    page = opened(written(tmp_path, num_families=0, num_failed=3))
    text = page.value("document.body.innerText")
    assert "undecided\n\nNo layer could be tested" in text
    assert "The question declared beforehand" in text
    assert "3 families failed" in text
    assert "0 families done of 3, 3 failed." in text
    assert page.value("document.getElementById('bar').offsetParent") is None  # there is nothing to choose from
    assert "<b>no & such data</b>" in text
    assert page.count("section") == page.count("section h2")
    assert [text for text in page.value(SECTIONS) if len(text) <= 15] == []


def test_a_sweep_without_any_measurement_says_why_each_section_is_empty(opened, tmp_path):
    store = Store(tmp_path)
    write_without_measurement(store)
    analyse(store, ("cka",), **SMALL)
    page = opened(tmp_path / "report.html")
    assert page.count("figure") == 0
    assert [text for text in page.value(SECTIONS) if len(text) <= 15] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes of analysis before seconds of page
def test_a_thousand_families_are_painted_within_two_seconds(opened, tmp_path):
    page = opened(written(tmp_path, 3, **THOUSAND))
    assert page.count(f"{CENTRAL} [data-f]") == 1001
    assert page.first_paint_s() < 2
    page.press(f"{CENTRAL} [data-f={STRESSED}] .point")
    assert page.count(".near") > 0
    took = page.value(
        "(() => { const s = performance.now(); document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'})); "
        "return performance.now() - s; })()"
    )
    assert took < 500
    assert (tmp_path / "report.html").stat().st_size < 8e6
