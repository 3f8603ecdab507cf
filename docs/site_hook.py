"""Pages of the site that do not lie in docs/: README, changelog, notes on measurements, and what is generated from the code.

mkdocs calls `on_files` once and `on_page_markdown` for every page.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
NOTES = sorted((path.name for path in (ROOT / "benchmarks").glob("2*.md")), reverse=True)
# Pages of the site by the file of the repository that they are.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks/index.md",
}
PAGES |= {f"benchmarks/{name}": f"benchmarks/{name}" for name in NOTES}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pages."""
    sys.path.insert(0, str(ROOT))
    from analysis.tables import schema_markdown
    from sweep.reference import configuration_markdown, json_schema, records_markdown

    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source == "benchmarks/README.md":
            text += "\n## Dated notes\n\n" + "".join(f"- [{_title(name)}]({name})\n" for name in NOTES)
        files.append(File.generated(config, page, content=text))
    generated = {"configuration.md": configuration_markdown(), "records.md": records_markdown(), "SCHEMA.md": schema_markdown()}
    for page, text in (generated | {"sweep.schema.json": json_schema()}).items():
        files.append(File.generated(config, page, content=text))
    return files


def _title(note: str) -> str:
    return f"{note[:10]}: {(ROOT / 'benchmarks' / note).read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}"


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """Links between files of the repository as links between pages; what is no page, such as code, stays as text."""
    uri = page.file.src_uri
    sources = {page: source for source, page in PAGES.items()}
    source = sources.get(uri, f"docs/{uri}")

    def linked(found: re.Match[str]) -> str:
        mark, text, target, anchor = found.group(1), found.group(2), found.group(3), found.group(4) or ""
        if "://" in target or target.startswith("mailto:"):
            return found.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        if not there or files.get_file_from_path(there) is None:
            return text if (ROOT / path).exists() else found.group()  # what is not there is left for mkdocs to name
        return f"{mark}[{text}]({posixpath.relpath(there, posixpath.dirname(uri) or '.')}{anchor})"

    return _LINK.sub(linked, markdown)
