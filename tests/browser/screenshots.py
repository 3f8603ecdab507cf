"""The pictures of the report in docs/images, to be looked at whenever the page changes. Needs a Chromium, as the tests here do.

    python -m tests.browser.screenshots docs/images results/cells results/breastmnist

Of the first folder of results the first screen, light, dark and on a phone, and a family isolated in the map of networks; of each further
one the first screen; and of three made-up sweeps: without a measurement, of failures only, and of 1,001 families (minutes of analysis).
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

from analysis.analyse import analyse
from analysis.storage import Store
from tests.analysis.conftest import write_sweep
from tests.browser.chrome import Chrome, Page, binary
from tests.browser.made_up import SMALL, THOUSAND, write_without_measurement

PHONE = {"width": 390, "height": 844, "phone": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("into", type=Path, metavar="FOLDER", help="where the pictures go")
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="analysed results, which name their pictures")
    chosen = parser.parse_args()
    path = binary()
    if path is None:
        parser.error("no Chromium on PATH, and the variable CHROME names none")
    with tempfile.TemporaryDirectory() as scratch:
        chrome = Chrome(path, Path(scratch, "profile"))
        try:
            default, *others = [folder / "report.html" for folder in chosen.results]
            shoot(chrome, default, chosen.into / "report_first_screen.png")
            shoot(chrome, default, chosen.into / "report_dark.png", dark=True)
            shoot(chrome, default, chosen.into / "report_phone.png", **PHONE)
            shoot(chrome, default, chosen.into / "report_isolated.png", at="#network_map", isolated=True, dark=True)
            for other in others:
                shoot(chrome, other, chosen.into / f"report_{other.parent.name}.png")
            for name, made in made_up(Path(scratch)).items():
                shoot(chrome, made, chosen.into / f"report_{name}.png")
        finally:
            chrome.close()


def made_up(scratch: Path) -> dict[str, Path]:
    empty, failures, thousand = (Store(scratch / name) for name in ("empty", "failures", "thousand"))
    write_without_measurement(empty)
    write_sweep(failures, num_families=0, num_failed=3)
    write_sweep(thousand, **THOUSAND)
    for store in (empty, failures, thousand):
        analyse(store, ("cka",), name=f"results/{Path(store.base).name}", **SMALL | {"num_dispersion_permutations": 3})
    return {name: scratch / name / "report.html" for name in ("empty", "failures", "thousand")}


def shoot(chrome: Chrome, report: Path, picture: Path, at: str = "", isolated: bool = False, **options: object) -> None:
    """A picture of the screen, scrolled to an element, in 256 colours."""
    page = Page(chrome, report, **options)
    if isolated:
        page.press("#gap_against_spread .panel.now .activation[data-f] .point")
    if at:
        page.value(f"document.querySelector({at!r}).scrollIntoView({{behavior: 'instant'}})")
    page.hover(1, 1)
    page.screenshot(picture)
    page.close()
    image = Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2).save(picture, optimize=True)  # keeps the colours of small marks
    print(f"{picture}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
