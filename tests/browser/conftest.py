"""A browser for all tests here; they skip where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.chrome import NAMES, Chrome, Page, binary


@pytest.fixture(scope="session")
def chrome(tmp_path_factory) -> Iterator[Chrome]:
    path = binary()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH, and the variable CHROME names none")
    browser = Chrome(path, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(chrome) -> Iterator[Callable[..., Page]]:
    """A function that opens a file (and options of `Page`). At the end, no page has complained or asked for anything."""
    pages: list[Page] = []

    def open_page(file: Path, **options: object) -> Page:
        pages.append(Page(chrome, file, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        assert page.complaints() == []
        assert page.requests() == []
        page.close()
