"""What the console shows while a sweep runs: one live line, and one line per finished family."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sweep.searcher import PrefixSearcher
from sweep.units import duration


class ProgressLine(tune.Callback):
    """The sweep's progress on a console. The ETA scales the time so far by the replica-epochs that are left."""

    def __init__(self, searcher: PrefixSearcher, console: Console) -> None:
        self.plan, self.searcher, self.console = searcher.plan, searcher, console
        self.began = time.monotonic()
        self.num_images, self.epochs = Counter[str](), Counter[str]()
        self.num_done = 0
        self.live = Live(self._line(), console=console, refresh_per_second=2, transient=True)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore, which never happens here; a live line cannot be pickled."""
        return {}

    def __enter__(self) -> ProgressLine:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.live.stop()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        name = trial.config["trial"]
        if "num_images" in result:
            self.num_images[name] = result["num_images"]
            self.epochs[name] = result["epoch"] - self.plan.remaining[name].start_epoch
        if result["status"] == "done":
            self.num_done += 1
            diverged = f"  {result['num_diverged']} diverged" if result["num_diverged"] else ""
            gap = result["train_accuracy"] - result["test_accuracy"]
            self.console.print(
                f"{name}  {self.plan.label(name):<46}  test {result['test_accuracy']:.3f}  gap {gap:+.3f}"
                f"  {result['seconds']:.1f} s{diverged}",
                highlight=False,
                markup=False,
            )
        elif result["status"] == "failed":
            self.console.print(
                f"{name}  {self.plan.label(name):<46}  failed: {result['error']}",
                highlight=False,
                markup=False,
                style="red",
            )
        elif name in self.searcher.reasons:
            self.console.print(
                f"{name}  {self.plan.label(name):<46}  pruned: {self.searcher.reasons[name]}",
                highlight=False,
                markup=False,
            )
        self.live.update(self._line())

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.console.print(f"{trial.config['trial']}  worker died", highlight=False, markup=False, style="red")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.live.update(self._line())

    def _line(self) -> Text:
        elapsed = time.monotonic() - self.began
        training = self.plan.config.training
        total = self.plan.unique_replica_epochs / training.replicas + self.searcher.num_unproposed * training.epochs
        share = self.epochs.total() / total if total else 1.0
        eta = f"ETA {duration(elapsed * (1 - share) / share)}" if share > 0.02 else "ETA ..."
        num_families = len(self.plan.remaining) + self.searcher.num_unproposed
        return Text(
            f"{self.num_done} of {num_families} families done, {len(self.searcher.running)} running, "
            f"{len(self.searcher.failed)} failed or skipped | {self.num_images.total() / max(elapsed, 1e-9):,.0f} images/s | "
            f"{duration(elapsed)}, {eta}"
        )
