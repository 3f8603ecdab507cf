"""The Optuna study of a search: proposes points of the space, is told what they gave, and outlives the process. Knows no Ray."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis.storage import Store
from sweep.config import ConfigError, Sweep
from sweep.parameters import decode, distributions, encode
from sweep.samplers import pruner, quiet, sampler
from sweep.space import Point, at, axes, every_value, num_stressed, point, recipe_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"
_MAX_DRAWS = 1000


class Proposal(NamedTuple):
    """An Optuna trial. `point` is None where the space has no such family, `trial` the family's id as noted in the study."""

    number: int
    point: Point | None
    state: str  # RUNNING, COMPLETE, PRUNED, FAIL or WAITING
    trial: str | None


class SearchStudy:
    """The study of a sweep with `search.kind: optuna`. Raises ConfigError where the stored one was made for another search."""

    def __init__(self, config: Sweep, store: Store, study: Study, storage: BaseStorage) -> None:
        self.config, self.space, self.search = config, config.space, config.search
        self.objectives = [objective.metric for objective in config.search.objectives]
        self.study, self.storage, self.where = study, storage, where(config, store)
        self.distributions = distributions(config.space)
        self._check_objectives()
        self._check_distributions()

    @classmethod
    def create(cls, config: Sweep, store: Store) -> SearchStudy:
        """The study, made if there is none yet. Raises ConfigError for a storage that cannot be opened."""
        import optuna

        search = config.search
        with quiet(), _storage_errors(config):
            if search.storage is None and store.is_local:
                os.makedirs(store.base, exist_ok=True)
                _mend(store.path(JOURNAL))
            storage = _storage(config, store)
            study = optuna.create_study(
                storage=storage,
                study_name=config.name,
                directions=[objective.direction for objective in search.objectives],
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(0),
                pruner=pruner(search.pruning),
            )
            study.sampler = sampler(search, len(study.get_trials(deepcopy=False)))
            if "objectives" not in study.user_attrs:
                study.set_user_attr("objectives", [objective.model_dump() for objective in search.objectives])
                study.set_metric_names([objective.metric for objective in search.objectives])
        return cls(config, store, study, storage)

    @classmethod
    def existing(cls, config: Sweep, store: Store) -> SearchStudy | None:
        """The study for reading, None if there is none yet. Writes nothing."""
        import optuna

        with quiet(), _storage_errors(config):
            if not _exists(config, store):
                return None
            storage = _storage(config, store)
            try:
                study = optuna.load_study(storage=storage, study_name=config.name)
            except KeyError:
                return None
        return cls(config, store, study, storage)

    def _check_objectives(self) -> None:
        new = [objective.model_dump() for objective in self.search.objectives]
        old = self.study.user_attrs.get("objectives", new)
        if old != new:
            told, wanted = (", ".join(f"{o['direction']} {o['metric']}" for o in some) for some in (old, new))
            raise ConfigError(
                "search.objectives",
                [f"the study {self.config.name} in {self.where} is to {told}, not to {wanted}; {_ANOTHER_STUDY}"],
            )

    def _check_distributions(self) -> None:
        """A study cannot have one parameter with different choices; the bounds of numbers may change."""
        from optuna.distributions import check_distribution_compatibility

        for trial in self.study.get_trials(deepcopy=False):
            names, today = set(trial.distributions), set(self.distributions)
            was_cut_off = not trial.state.is_finished() and names < today  # killed while it was being asked for
            if names and names != today and not was_cut_off:
                old, new = (", ".join(sorted(some)) for some in (names, today))
                raise ConfigError(
                    "space", [f"the study {self.config.name} in {self.where} has the parameters {old}, not {new}; {_ANOTHER_STUDY}"]
                )
            for name, kind in trial.distributions.items():
                wanted = self.distributions.get(name)
                try:
                    if wanted is not None:
                        check_distribution_compatibility(kind, wanted)
                except ValueError:
                    raise ConfigError(
                        "space", [f"the study {self.config.name} in {self.where} has {name} as {kind}, not as {wanted}; {_ANOTHER_STUDY}"]
                    ) from None

    def check_trial(self, proposal: Proposal, trial: str) -> None:
        """Refuse a study whose families are others than those that its parameters name today."""
        if proposal.trial not in (None, trial):
            raise ConfigError(
                "search",
                [
                    f"the study {self.config.name} in {self.where} was made under another base recipe, other probes or functions: trial "
                    f"{proposal.number} was {proposal.trial} and would be {trial}; {_ANOTHER_STUDY}"
                ],
            )

    def proposals(self) -> list[Proposal]:
        """All Optuna trials so far."""
        return [self._proposal(trial) for trial in self.study.get_trials(deepcopy=False)]

    def _proposal(self, trial: FrozenTrial) -> Proposal:
        return Proposal(trial.number, self._point(trial.params), trial.state.name, trial.user_attrs.get("trial"))

    def _point(self, params: dict[str, Any]) -> Point | None:
        values = decode(self.space, params)
        found = None if values is None else point(self.space, values)
        with contextlib.suppress(ValueError):  # of values that the base recipe refuses together
            if found is not None:
                recipe_of(self.config, found.changes)
                return found
        return None

    def ask(self) -> Proposal:
        """The next point by the sampler, or one that waits to be tried again."""
        with quiet():
            trial = self.study.ask(self.distributions)
            return Proposal(trial.number, self._point(trial.params), "RUNNING", None)

    def ask_again(self, number: int) -> Proposal:
        """A new Optuna trial with the parameters of an earlier one."""
        with quiet():
            self.study.enqueue_trial(self.study.get_trials(deepcopy=False)[number].params)
        return self.ask()

    def ask_unproposed(self, is_new: Callable[[Point], bool]) -> Proposal | None:
        """A point that is new, drawn at random; None where the space has none left."""
        generator = np.random.default_rng([self.search.seed, len(self.study.get_trials(deepcopy=False))])
        drawn = ({name: at(name, axis, float(generator.random())) for name, axis in axes(self.space).items()} for _ in range(_MAX_DRAWS))
        for some in (drawn, every_value(self.space) if math.isfinite(num_stressed(self.space)) else iter(())):
            for values in some:
                found = self._point(encode(self.space, values))
                if found is not None and is_new(found):
                    with quiet():
                        self.study.enqueue_trial(encode(self.space, values))
                    return self.ask()
        return None

    def note(self, number: int, trial: str, point: Point) -> None:
        """Write beside an Optuna trial which family it is."""
        stored = self.study.get_trials(deepcopy=False)[number]
        for key, value in (("trial", trial), ("schedule", str(point.schedule))):
            if stored.user_attrs.get(key) != value:
                self.storage.set_trial_user_attr(stored._trial_id, key, value)

    def tell(self, number: int, values: list[float]) -> None:
        """The objectives of a finished family; one that has no finite number is FAIL."""
        with quiet():
            if all(map(math.isfinite, values)):
                self.study.tell(number, values)
            else:
                self.fail(number)

    def fail(self, number: int) -> None:
        from optuna.trial import TrialState

        with quiet():
            self.study.tell(number, state=TrialState.FAIL)

    def prune(self, number: int) -> None:
        from optuna.trial import TrialState

        with quiet():
            self.study.tell(number, state=TrialState.PRUNED)

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        """Report a mean at the end of an epoch, and whether the family is hopeless by the study's pruner."""
        pruning, trial = self.search.pruning, self.study.get_trials(deepcopy=False)[number]
        if pruning is None or not math.isfinite(value):
            return False
        if self.search.objectives[0].direction == "minimize" and pruning.kind != "threshold":
            value = -value  # pruners that compare take the study's direction for the better one; here larger is better
        with quiet():
            if epoch not in trial.intermediate_values:  # a worker that died is followed by another that starts earlier
                self.storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            return self.study.pruner.prune(self.study, self.study.get_trials(deepcopy=False)[number])


_ANOTHER_STUDY = "give the sweep another name, or move that study away: finished families are answered from the tables all the same"


def where(config: Sweep, store: Store) -> str:
    """What to call the place of the study."""
    return config.search.storage or store.path(JOURNAL)


def _storage(config: Sweep, store: Store) -> BaseStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if config.search.storage is not None:
        return optuna.storages.RDBStorage(config.search.storage)
    if store.is_local:
        return optuna.storages.JournalStorage(JournalFileBackend(store.path(JOURNAL)))
    from sweep.journal import StoreJournal

    return optuna.storages.JournalStorage(StoreJournal(store, JOURNAL))


def _mend(path: str) -> None:
    """Cut off a last line that a killed process has not finished: the next one would be appended to it, and neither could be read."""
    if not os.path.exists(path):
        return
    with open(path, "rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)


def _exists(config: Sweep, store: Store) -> bool:
    """Whether there may be a study to load; opening a database that is not there would make one."""
    url = config.search.storage
    if url is None:
        return os.path.exists(store.path(JOURNAL)) if store.is_local else bool(store.names(JOURNAL, ".json"))
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not os.path.exists(parsed.database or ""):
        return False
    engine = sqlalchemy.create_engine(url)
    try:
        return bool(sqlalchemy.inspect(engine).has_table("studies"))
    finally:
        engine.dispose()


@contextlib.contextmanager
def _storage_errors(config: Sweep) -> Iterator[None]:
    import sqlalchemy
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, ImportError, OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        why = " ".join(str(error).split("\n")[0].split())
        raise ConfigError("search.storage", [f"{config.search.storage or JOURNAL!r} cannot be opened: {why}"]) from None
