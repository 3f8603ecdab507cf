"""A sweep for Python and notebooks: the sweep file as an object, with the verbs `plan` and `run`."""

from __future__ import annotations

import json
import os
import warnings
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import PrivateAttr

from analysis.wording import counted
from sweep import config
from sweep.command_line import command
from sweep.config import ConfigError
from sweep.log import RunLog
from sweep.notebook import Bar, in_notebook

if TYPE_CHECKING:  # these import torch or pandas, which `import sweep` does not wait for
    from analysis.results import Results
    from sweep.outlook import Outlook


class Sweep(config.Sweep):
    """A sweep: every key of the sweep file as an attribute (`s.training.replicas`), and what can be done with it.

    It cannot be changed; make another with `from_recipe`. Bad input raises ConfigError, whose message names the file and key, the value,
    what is allowed and the nearest valid name.
    """

    _recipe: str | None = PrivateAttr(None)
    _overrides: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def from_recipe(cls, recipe: str | os.PathLike[str] | None = None, /, **changes: Any) -> Self:
        """A sweep from a shipped recipe's name or a .yaml file (default: `cells`), with keys changed.

        Two underscores stand for the dot of a key: `training__replicas=4` is `--set training.replicas=4` of the command line. Values are
        those of YAML: numbers, text, true, false, None, lists and dicts. Raises ConfigError.
        """
        name = None if recipe is None else os.fspath(recipe)
        overrides = [_override(key, value) for key, value in changes.items()]
        found, _ = config.load(name, overrides, cls)
        found._recipe, found._overrides = name or config.DEFAULT_RECIPE, overrides
        return found

    def plan(self) -> Outlook:
        """What would run, what is done, what sharing saves and what it costs. Writes nothing.

        `families` of what comes back is a DataFrame with a row per family, `costs` one with a row per kind of schedule. Raises
        ConfigError where the input is bad.
        """
        from sweep import outlook

        return outlook.of(self, self._source)

    def run(self, budget_hours: float | None = None, trim: bool = False, quiet: bool = False) -> Results:
        """Train the families that are not in the tables yet, analyse all, and give the results, as `analysis.load` does.

        Interrupt it at any time and call it again: only what is missing is trained. `budget_hours` refuses a plan that costs more
        device-hours, or with `trim` runs the first families that fit. In a notebook a bar says how far it is; `quiet` prints nothing.
        A family that fails does not stop the others: it is warned of, and its row in `trials` has the exception. Raises ConfigError where
        the input is bad, KeyboardInterrupt once everything is stopped.
        """
        from sweep.run import execute

        bar = Bar() if in_notebook() and not quiet else None
        console = RunLog(bar=bar, soft_wrap=True, highlight=False, quiet=quiet, force_jupyter=False)  # a notebook, too, gets lines of text
        code = execute(self, self._source, self._command, console, budget_hours, trim)
        if code == 130:
            raise KeyboardInterrupt
        found = self.results()
        if code:
            unfinished = found.trials.loc[found.trials["status"].isin(["failed", "skipped"]), "trial"]
            warnings.warn(
                f"{self.name}: the sweep is not complete, {counted(len(unfinished), 'family')} failed or were skipped; see `trials`, "
                "columns status, error_message and traceback",
                stacklevel=2,
            )
        return found

    def results(self) -> Results:
        """What is in the tables so far, as `analysis.load` gives it. Raises FileNotFoundError where nothing is."""
        import analysis

        return analysis.load(self.root)

    @property
    def _source(self) -> str:
        """What messages call the sweep file."""
        if self._recipe is None:
            return f"sweep {self.name}"
        return f"{self._recipe} with {', '.join(self._overrides)}" if self._overrides else self._recipe

    @property
    def _command(self) -> str:
        """What to type to run this again. A sweep that was put together in Python is found as the run writes it."""
        return command(self._recipe or config.below(self.root, "sweep.yaml"), self._overrides)

    def __repr__(self) -> str:
        written = yaml.safe_dump(self.model_dump(mode="json", exclude_unset=True), sort_keys=False, default_flow_style=None, width=120)
        return f"Sweep {self.name!r} ({self._source}), results in {self.root}\n\n{written.rstrip()}"

    __str__ = __repr__


def _override(key: str, value: Any) -> str:
    """`training__replicas`, 4 as `training.replicas=4`. Raises ConfigError for values that no file could hold."""
    path = key.replace("__", ".")
    try:
        return f"{path}={json.dumps(value)}"
    except TypeError:
        kind = type(value).__name__
        hint = (
            f"give {path} as {value.item()!r}" if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else "allowed: YAML's own kinds"
        )
        raise ConfigError("from_recipe", [f"{path}: {value!r} is a {kind}, which no sweep file holds; {hint}"]) from None


__all__ = ["ConfigError", "Sweep"]
