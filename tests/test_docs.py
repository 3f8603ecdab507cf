"""Pages tell the truth: links lead somewhere, commands parse, sweep files are valid, Python runs, and the site builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from analysis import tables
from analysis.__main__ import parser as parser_of_analysis
from analysis.pairs_command import parsed as parsed_pairs
from sweep import command_line
from sweep.config import Sweep, load, recipe_names
from sweep.records import RECORDS
from sweep.reference import configuration_markdown, undescribed
from sweep.yaml_loader import SweepLoader

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
GENERATED = {"docs/configuration.md", "docs/records.md", "docs/SCHEMA.md", "docs/sweep.schema.json"}  # on the site
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The code on a page: what kind it is (empty for an indented block), and the text."""
    text = page.read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield found.group(1) or "plain", found.group(2)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for found in re.finditer(r"(?:^    .*\n|^\n(?=    ))+", rest, re.MULTILINE):
        yield "", textwrap.dedent(found.group())


def prose(page: Path) -> str:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^    .*\n", "", text, flags=re.MULTILINE))


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as code hosts and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if str(there.relative_to(ROOT)) in GENERATED:
            continue
        assert there.exists(), target
        assert not anchor or anchor in slugs(there), target


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command line in a block of shell, those handed to another machine in quotes among them."""
    for kind, text in blocks(page):
        if kind not in ("", "plain", "bash", "sh", "console"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if re.match(r"(\$ )?(\w+=\S+ )*(python|pip|sweep|ray|tensorboard|mkdocs|nohup|taskset)\b", line.strip()):
                for part in re.split(r"&&| \| | > ", re.sub(r"(^|\s)#.*$", "", line.replace("[.]", ""))):
                    yield from _words(part)


def _words(part: str) -> Iterator[list[str]]:
    try:
        words = shlex.split(part)
    except ValueError:  # a quote that ends in another part
        return
    while words and re.fullmatch(r"\$|\w+=\S*", words[0]):
        del words[0]
    yield words
    for word in words:
        if word.startswith("python -m "):
            yield from _words(word)


@pages
def test_commands_are_accepted(page, capsys):
    for words in commands(page):
        try:
            _check(words)
        except SystemExit:
            pytest.fail(f"{shlex.join(words)}: {capsys.readouterr().err}")


def _check(words: list[str]) -> None:
    """Parse a command as it would be when typed, and run nothing."""
    chosen = None
    if words[:1] == ["sweep"]:
        chosen = command_line.parsed(words[1:])
    elif words[:2] == ["python", "-m"]:
        module, rest = words[2], words[3:]
        if module == "sweep":
            chosen = command_line.parsed(rest)
        elif module == "sweep.run":
            chosen = command_line.parser_of_run().parse_args(rest)
        elif module == "sweep.pairs" or (module == "analysis" and rest[:1] == ["pairs"]):
            parsed_pairs(rest[module == "analysis" :], "pairs")
        elif module == "analysis":
            parser_of_analysis().parse_args(rest)
        elif module == "pytest":
            named = [word.partition("::")[0] for word in rest if word.startswith("tests")]
            assert all((ROOT / name).exists() for name in named), words
        elif module != "venv":
            file = ROOT / module.replace(".", "/")
            assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), words
    elif words[:1] == ["python"] and len(words) > 1 and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists(), words
    elif words[:2] == ["pip", "install"]:
        for word in words:
            for extra in re.findall(r"(?:\.|karenina-sweep)\[([\w,]+)\]", word):
                assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"]), words
    if hasattr(chosen, "config"):
        _check_config(chosen.config, chosen.overrides)


def _check_config(config: str | None, overrides: list[str]) -> None:
    """The sweep file is shipped or shown as an example, and takes the overrides. Raises what loading raises."""
    is_example = config is not None and config.endswith(".yaml") and not (ROOT / config).exists()
    assert is_example or config is None or config in recipe_names() or (ROOT / config).exists(), config
    load(None if is_example else str(ROOT / config) if config and config.endswith(".yaml") else config, overrides)


def test_a_wrong_command_would_be_seen(tmp_path):
    """The check itself, on what it must refuse."""
    for line in ("python -m sweep plam", "python -m sweep.run --confg quick", "sweep run --retri failed", "python -m analysis"):
        with pytest.raises(SystemExit):
            _check(shlex.split(line))
    for line in ("python -m sweep.run --config quikc", "python -m sweep.run --set training.replica=3", "pip install '.[dosc]'"):
        with pytest.raises((AssertionError, ValueError)):
            _check(shlex.split(line))
    page = tmp_path / "page.md"
    page.write_text("# A\n\n    python -m sweep plan   # why\n\n```bash\nX=1 sweep run \\\n  --quiet && pip install x\n```\n")
    assert [shlex.join(words) for words in commands(page)] == ["sweep run --quiet", "pip install x", "python -m sweep plan"]
    assert sum(len([words for words in commands(page) if words[:2] == ["python", "-m"]]) for page in PAGES) > 60


@pages
def test_sweep_files_are_valid(page):
    for kind, text in blocks(page):
        if kind in ("yaml", "yml"):
            values = yaml.load(text, SweepLoader)
            assert set(values) <= set(Sweep.model_fields), text
            Sweep.model_validate({"name": "page"} | values)


@pages
def test_python_compiles(page):
    for kind, text in blocks(page):
        if kind == "python":
            compile(text, str(page), "exec")


SCHEDULES = [[[0, "relu", "cross_entropy"]], [[0, "relu", "cross_entropy"], [2, "tanh", "cross_entropy"]]]


def test_python_on_results_runs(small_recipe, small_data, tmp_path, monkeypatch, capsys):
    """Every block that reads `results/cells`, on a small sweep under that name."""
    from analysis.analyse import analyse
    from analysis.storage import Store
    from trainables.family import Family, run
    from trainables.options import Probes
    from trainables.rows import write_samples
    from trainables.schedule import Schedule

    store, probes = Store(tmp_path / "results" / "cells"), Probes(num_samples=10)
    for phases in SCHEDULES:
        list(run(Family(small_recipe, probes, Schedule.of(phases)), store, data=small_data))
    write_samples(store, small_data, probes)
    analyse(store, num_permutations=99)
    monkeypatch.chdir(tmp_path)
    ran, (family, *_) = 0, tables.names(store, "trials")
    for page in PAGES:
        for kind, text in blocks(page):
            if kind == "python" and "results/cells" in text:
                exec(compile(re.sub("t[0-9a-f]{12}", family, text), str(page), "exec"), {})
                ran += 1
    assert ran >= 3


def test_every_key_says_what_it_means():
    assert undescribed(Sweep) == []
    for record in RECORDS:
        assert undescribed(record) == []


def test_the_reference_has_every_key():
    from sweep.completion import keys

    text = configuration_markdown()
    for key in keys():
        assert f"| `{key.rpartition('.')[2]}` |" in text, key
    assert "| `replicas` | whole number ≥ 2 ≤ 32767 | `6` |" in text
    assert "`data` with `source: npz`" in text


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"WARNING\s+-", done.stderr), done.stderr
    start = (tmp_path / "site" / "index.html").read_text()
    assert 'href="cluster.html"' in start
    assert "How the verdict is made" in start
    assert "gap_accuracy" in (tmp_path / "site" / "SCHEMA.html").read_text()
    assert len(list((tmp_path / "site" / "benchmarks").glob("2*.html"))) == len(list((ROOT / "benchmarks").glob("2*.md")))


def test_the_citation_is_of_this_version():
    """By the keys that Citation File Format 1.2.0 asks for."""
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert found["cff-version"] == "1.2.0"
    assert found["version"] == PROJECT["version"]
    assert all({"name"} <= set(author) or {"family-names"} <= set(author) for author in found["authors"])
    for one in found["references"]:
        assert {"type", "title", "authors"} <= set(one)
