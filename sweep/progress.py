"""What the console shows while a sweep runs: one live line (in a notebook a bar), and one line per finished family."""

from __future__ import annotations

import json
import time
from typing import Any

from ray import tune
from rich.live import Live
from rich.text import Text

from analysis.wording import counted
from sweep.log import RunLog
from sweep.searcher import PrefixSearcher
from sweep.units import duration


class ProgressLine(tune.Callback):
    """The sweep's progress on a console. The ETA scales the time so far by the replica-epochs that are left."""

    def __init__(self, searcher: PrefixSearcher, console: RunLog) -> None:
        self.plan, self.searcher, self.console = searcher.plan, searcher, console
        self.began = time.monotonic()
        self.num_images = self.num_epochs = self.num_done = 0
        self._told: dict[str, tuple[int, int]] = {}  # images and epochs that each running family told of
        self.live = Live(Text(self._line()), console=console, refresh_per_second=2, transient=True)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore, which never happens here; a live line cannot be pickled."""
        return {}

    def __enter__(self) -> ProgressLine:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.live.stop()
        self._refresh(is_last=True)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = trial.config["trial"]
        planned = self.plan.remaining[name]
        origin = f"epoch {planned.start_epoch}, state {planned.start_state}" if planned.start_state else "the beginning"
        self.console.detail(f"{name}  {self.plan.label(name):<46}  starts from {origin}")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        name, report = trial.config["trial"], json.loads(result.get("report", "{}"))
        if report:
            images, epochs = self._told.get(name, (0, 0))
            at = report["num_images"], report["epoch"] - self.plan.remaining[name].start_epoch
            self._told[name] = at
            self.num_images, self.num_epochs = self.num_images + at[0] - images, self.num_epochs + at[1] - epochs
        if result.get("state"):
            self.console.detail(f"{name}  {self.plan.label(name):<46}  saved the state {result['state']}")
        if result["status"] in ("done", "failed"):
            self._told.pop(name, None)
        if result["status"] == "done":
            self.num_done += 1
            diverged = f"  {report['num_diverged']} diverged" if report["num_diverged"] else ""
            gap = report["train_accuracy"] - report["test_accuracy"]
            self.console.one_of_many(
                f"{name}  {self.plan.label(name):<46}  test {report['test_accuracy']:.3f}  gap {gap:+.3f}"
                f"  {report['seconds']:.1f} s{diverged}"
            )
            for note in report.get("notes", []):
                self.console.print(f"note: {note}", highlight=False, markup=False)
        elif result["status"] == "failed":
            self.console.wrong(f"{name}  {self.plan.label(name):<46}  failed: {result['error']}")
        elif name in self.searcher.reasons:
            self.console.one_of_many(f"{name}  {self.plan.label(name):<46}  pruned: {self.searcher.reasons[name]}")
        self._refresh()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.console.wrong(f"{trial.config['trial']}  worker died")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._refresh()

    def _refresh(self, is_last: bool = False) -> None:
        if self.console.bar is not None:
            self.console.bar.show(self._share(), self._line(), is_last)
        self.live.update(Text(self._line()))

    def _share(self) -> float:
        """Of the replica-epochs to train, those that were trained."""
        total = self.searcher.epochs_to_train
        return self.num_epochs / total if total else 1.0

    def _line(self) -> str:
        elapsed, share = time.monotonic() - self.began, self._share()
        eta = f"ETA {duration(elapsed * (1 - share) / share)}" if share > 0.02 else "ETA ..."
        num_families = len(self.plan.remaining) + self.searcher.num_unproposed
        return (
            f"{self.num_done} of {counted(num_families, 'family')} done, {len(self.searcher.running)} running, "
            f"{len(self.searcher.failed)} failed or skipped | {self.num_images / max(elapsed, 1e-9):,.0f} images/s | "
            f"{duration(elapsed)}, {eta}"
        )
