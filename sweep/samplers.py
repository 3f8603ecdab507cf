"""Optuna's samplers and pruners by the names of the sweep file."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sweep.config import near
from sweep.search import Pruning, Search

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

_SAMPLERS = {"tpe": "TPESampler", "nsga2": "NSGAIISampler", "qmc": "QMCSampler", "random": "RandomSampler"}
_KINDS = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log lines, and without warnings that parts of it may change."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def sampler(search: Search, num_trials: int) -> BaseSampler:
    """Optuna's sampler. Raises ValueError, naming the option, for one that its constructor does not take or refuses."""
    import optuna

    kind = getattr(optuna.samplers, _SAMPLERS[search.drawn_by])
    known = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        types = [_KINDS.get(part.strip()) for part in str(parameter.annotation).strip("'").split("|")]
        if name != "seed" and None not in types:  # the rest are Python objects, which a sweep file cannot hold
            known[name] = tuple(found for found in types if found is not None)
    for name, value in search.sampler_options.items():
        if name not in known:
            raise ValueError(f"{name}: unknown option; {near(name, list(known))}allowed: {', '.join(known) or 'none'}")
        allowed = (*known[name], *((int,) if float in known[name] else ()))
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ValueError(f"{name}: {value!r} is refused: allowed is {' or '.join(t.__name__ for t in known[name])}")
    # A quasi-random sequence goes on where it was under one and the same seed.
    seed = search.seed if search.drawn_by == "qmc" else int(np.random.SeedSequence([search.seed, num_trials]).generate_state(1)[0])
    options = {"qmc": {"scramble": True, "warn_independent_sampling": False, "warn_asynchronous_seeding": False}}.get(search.drawn_by, {})
    with quiet():
        return kind(**(options | search.sampler_options), seed=seed)


def pruner(pruning: Pruning | None) -> BasePruner:
    """Optuna's pruner; one that never prunes where none is asked for."""
    from optuna import pruners

    if pruning is None:
        return pruners.NopPruner()
    if pruning.kind == "threshold":
        return pruners.ThresholdPruner(lower=pruning.lower, n_warmup_steps=pruning.warmup_epochs + 1)
    startup, warmup = pruning.startup_families, pruning.warmup_epochs + 1
    if pruning.kind == "percentile":
        return pruners.PercentilePruner(float(pruning.percentile or 0), startup, warmup)
    return pruners.MedianPruner(startup, warmup)
