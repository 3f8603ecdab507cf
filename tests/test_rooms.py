"""The arrows between the rooms, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {"analysis": {"analysis"}, "trainables": {"trainables", "analysis"}, "sweep": {"sweep", "trainables", "analysis"}}

# Measures that change images or compare outputs where the networks are, and the products that a GPU takes if asked to.
ON_THE_DEVICE = {"diffeo.py", "stability.py", "device.py"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def refuse(absent: list[str]) -> str:
    """Code that makes packages impossible to import."""
    blocks = f"if name.split('.')[0] in {absent!r}: raise ModuleNotFoundError(name)"
    return f"import sys; exec('class Absent:\\n def find_spec(self, name, *_):\\n  ' + {blocks!r}); sys.meta_path.insert(0, Absent())"


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_run_one_way(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        heads = {name.split(".")[0] for name in imports(path)}
        assert heads & set(ALLOWED) <= ALLOWED[room], path
        assert not heads & {"pickle", "dill", "joblib", "cloudpickle"}, path
        if room == "analysis":
            assert not heads & {"ray", "torchvision"}, path
            assert "torch" not in heads or path.name in ON_THE_DEVICE, path
        if room == "trainables" and path.name != "trainable.py":
            assert "ray" not in heads, path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("trainables.training", ["ray"]),
        ("trainables.family", ["ray"]),
        ("trainables.benchmark", ["ray"]),
        ("analysis.akp", ["ray", "torch"]),
        ("analysis.measures.hull", ["ray", "torch"]),
        ("analysis.__main__", ["ray", "torch"]),
        ("analysis.pairs_command", ["ray", "torch"]),
        ("sweep", ["ray", "torch", "pandas", "pydantic"]),
        ("sweep.interactive", ["ray", "torch"]),
        ("sweep.config", ["ray", "torch"]),
        ("sweep.__main__", ["ray", "torch"]),
        ("sweep.views", ["ray"]),
    ],
)
def test_imports_stay_light(module, absent):
    subprocess.run([sys.executable, "-c", f"{refuse(absent)}; import {module}"], check=True, cwd=ROOT, timeout=100)


@pytest.mark.parametrize("command", [["sweep", "--help"], ["sweep.run", "--help"], ["sweep", "plan", "--help"], ["sweep.pairs", "--help"]])
def test_help_does_not_import_torch(command):
    code = f"{refuse(['ray', 'torch'])}; import runpy; sys.argv = {command!r}; runpy.run_module({command[0]!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_files_hold_one_idea():
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 360, path
