"""All-pairs similarity by this project and by public libraries, on the same arrays, in one run.

    python benchmarks/similarity_vs_peers.py [--networks 32] [--samples 1000] [--width 512] [--repeats 3] [--cases NAME ...] [--json FILE]

The standard case is 32 synthetic replicas of 1,000 samples x 512 features, float32, 496 pairs. Each subject (similarity_subjects.py) has a
process of its own with one BLAS thread; they run in turns; seconds are CPU seconds of the process, preparation of each network included,
imports and compilation not. Peers that take a pair at a time are timed on 3 pairs per repeat, and the fastest counts for every pair.
Exit code 1 where a bar is missed; bars hold for the standard case and are checked there only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from similarity_subjects import CASES, groups_of

STANDARD = {"networks": 32, "samples": 1000, "width": 512}
MAX_DEVIATION = 1e-6
PROCRUSTES_S = 10.0
# case -> (times faster, than whom: None is the fastest peer present)
BARS: dict[str, tuple[float, str | None]] = {
    "cka_debiased": (3.5, None),
    "procrustes": (1.5, None),
    "rsa_spearman": (5.0, "rsatoolbox"),
    "mutual_knn": (100.0, "loop"),
    "jsd": (100.0, "loop"),
    "permdisp": (50.0, None),
}
THREADS = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"], "1")


@dataclass
class Figures:
    """What was measured of one subject."""

    case: str
    subject: str
    version: str = ""
    absent: str = ""
    seconds: list[float] = field(default_factory=list)  # CPU seconds for all pairs, per repeat
    deviation: float = np.nan  # largest, in similarity (permdisp: relative, in F), from the float64 reference
    num_compared: int = 0  # pairs over which that is


class Subject:
    """A process that runs one subject of one case whenever it is told to."""

    def __init__(self, case: str, subject: str, folder: str) -> None:
        root = Path(__file__).parents[1]
        path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), str(root)) if part)
        command = [sys.executable, str(root / "benchmarks" / "similarity_subjects.py"), case, subject, folder]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | THREADS | {"PYTHONPATH": path}
        )
        self.figures = Figures(case, subject)
        told = self._answer()
        self.figures.version, self.figures.absent = told.get("version", ""), told.get("absent", "")

    def run(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        told = self._answer()
        if "seconds" in told:
            self.figures.seconds.append(told["seconds"])
        else:
            self.figures.absent = told["absent"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        return {"absent": f"ended with exit code {self.process.wait()}"}

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def make_arrays(folder: str, networks: int, samples: int, width: int) -> None:
    """Replicas: a shared latent of 64 dimensions with a power law, a private one of half its size, noise, each turned at random."""
    generator = np.random.default_rng(0)
    powers = np.arange(1, 65) ** -0.5
    shared = generator.standard_normal((samples, 64)) * powers
    X = np.empty((networks, samples, width), np.float32)
    for x in X:
        private = 0.5 * generator.standard_normal((samples, 64)) * powers
        turned = [latent @ generator.standard_normal((64, width)) / 8 for latent in (shared, private)]
        x[:] = turned[0] + turned[1] + 0.05 * generator.standard_normal((samples, width))
    np.save(f"{folder}/features.npy", X)
    common = 2 * generator.standard_normal((samples, 10))
    np.save(f"{folder}/logits.npy", (common + generator.standard_normal((networks, samples, 10))).astype(np.float32))
    spread = np.repeat(generator.uniform(0.8, 1.2, 32), 16)[:, None]
    points = spread * generator.standard_normal((512, 50))
    D = np.sqrt(np.maximum((points**2).sum(1)[:, None] + (points**2).sum(1) - 2 * points @ points.T, 0))
    np.fill_diagonal(D, 0)
    np.save(f"{folder}/distances.npy", (D + D.T) / 2)
    assert len(set(groups_of(D))) == 32


def measure(case: str, folder: str, repeats: int) -> list[Figures]:
    """All subjects of a case, in turns, and how far each is from the reference."""
    subjects = [Subject(case, name, folder) for name in CASES[case][1]]
    for subject in subjects:
        if subject.figures.subject == "reference":
            subject.run()
    present = [s for s in subjects if not s.figures.absent and s.figures.subject != "reference"]
    for _ in range(repeats):
        for subject in present:
            if not subject.figures.absent:
                subject.run()
    for subject in subjects:
        subject.close()
    reference = np.load(f"{folder}/{case}-reference.npy")
    for subject in present:
        if subject.figures.seconds:
            found = np.load(f"{folder}/{case}-{subject.figures.subject}.npy")
            deviations = np.abs(found - reference)
            if case == "permdisp":
                deviations /= reference
            else:
                deviations = deviations[np.triu_indices(len(found), 1)]
            known = deviations[np.isfinite(deviations)]
            subject.figures.deviation, subject.figures.num_compared = float(known.max()), len(known)
    return [subject.figures for subject in subjects if subject.figures.subject != "reference"]


def missed(case: str, figures: list[Figures]) -> str:
    """Why the bar of a case is missed; empty where it is met."""
    least, whom = BARS[case]
    mine, *others = figures
    if not mine.seconds:
        return mine.absent
    if not mine.deviation <= MAX_DEVIATION:
        return f"deviates by {mine.deviation:.1e}, more than {MAX_DEVIATION:g}"
    peers = [f for f in others if f.seconds and f.subject in ((whom,) if whom else (f.subject,))]
    if case == "procrustes" and min(mine.seconds) <= PROCRUSTES_S:
        return ""
    if not peers:
        return f"{whom or 'every peer'} is absent"
    ratio = min(min(f.seconds) for f in peers) / min(mine.seconds)
    return "" if ratio >= least else f"{ratio:.2f}x, below {least:g}x {whom or 'the fastest peer'}"


def table(case: str, figures: list[Figures]) -> Table:
    shown = Table(title=case, box=None, pad_edge=False, title_justify="left")
    shown.add_column("subject", no_wrap=True)
    for column in ("least s", "median s", "x ours", "max deviation", "values"):
        shown.add_column(column, justify="right", no_wrap=True)
    mine = min(figures[0].seconds, default=np.nan)
    for f in figures:
        if not f.seconds:
            shown.add_row(f.subject, f.absent)
            continue
        least, median = min(f.seconds), float(np.median(f.seconds))
        cells = [f"{least:.4g}", f"{median:.4g}", f"{least / mine:.3g}", f"{f.deviation:.1e}", str(f.num_compared)]
        shown.add_row(f"{f.subject} {f.version}".strip(), *cells)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in STANDARD.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME", help=f"default: {' '.join(CASES)}")
    parser.add_argument("--json", metavar="FILE", help="every repeat, versions and hardware")
    options = parser.parse_args()
    console = Console(width=120)
    sizes = {name: getattr(options, name) for name in STANDARD}
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    console.print(f"{sizes}, {options.repeats} repeats, {platform.processor() or platform.machine()}, {versions}", highlight=False)
    began, everything, failures = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as folder:
        make_arrays(folder, **sizes)
        for case in options.cases:
            figures = measure(case, folder, options.repeats)
            everything += figures
            console.print(table(case, figures), highlight=False)
            if sizes == STANDARD and case in BARS and (why := missed(case, figures)):
                failures.append(f"{case}: {why}")
    for failure in failures:
        console.print(f"MISSED {failure}", highlight=False, markup=False)
    if sizes != STANDARD:
        console.print("bars are not checked: not the standard case")
    elif not failures:
        console.print("all bars are met")
    console.print(f"{time.monotonic() - began:.0f} s", highlight=False)
    if options.json:
        Path(options.json).write_text(
            json.dumps({"sizes": sizes, "versions": versions, "figures": [asdict(f) for f in everything]}, indent=1)
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
