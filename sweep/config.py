"""The sweep file: pydantic models, shipped recipes, dotted overrides, and one message for every mistake."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from sweep.mistakes import ConfigError, explain, near
from sweep.search import Axis, Search
from sweep.yaml_loader import NOT_YAML, SweepLoader
from trainables.options import Probes
from trainables.recipe import BaseRecipe, CellsData, Data, Model, Training
from trainables.section import Section, Unique

DEFAULT_RECIPE = "cells"
# Those of analysis.measures.similarity, written out so that reading a sweep file does not import the analysis; a test compares them.
MEASURE_NAMES = (
    "cka",
    "cka_debiased",
    "cka_angular",
    "procrustes",
    "angular_shape",
    "cca_mean",
    "cca_r2",
    "svcca",
    "pwcca",
    "rsa_pearson",
    "rsa_spearman",
    "rsa_cosine",
    "dcor_debiased",
    "mutual_knn",
    "disagreement",
    "churn",
    "jsd",
    "error_consistency",
    "all",
)


def _measure_name(name: str) -> str:
    if ":" not in name and name not in MEASURE_NAMES:
        raise ValueError(
            f"{name!r} is unknown; {near(name, list(MEASURE_NAMES))}allowed: {', '.join(MEASURE_NAMES)}, or package.module:name"
        )
    return name


MeasureName = Annotated[str, AfterValidator(_measure_name)]


class Space(Section):
    """Which families there are: schedules, and what of the base recipe is varied."""

    activations: Annotated[list[str], Unique] = Field(
        ["relu", "tanh", "gelu"],
        description="Activations, each swapped for each other; names or package.module:function.",
    )
    losses: Annotated[list[str], Unique] = Field(
        ["cross_entropy", "squared_error"],
        description="Losses, each swapped for each other; names or package.module:function.",
    )
    swap_epochs: Annotated[list[int], Unique] = Field(
        [1, 2, 4, 6], description="Epochs after which the functions are swapped: 1 to epochs - 1."
    )
    swaps: Annotated[list[Literal["activation", "loss", "both"]], Unique] = Field(
        ["activation", "loss", "both"], description="What a swap exchanges."
    )
    pulse_epochs: Annotated[list[Annotated[int, Field(ge=1)]], Unique] = Field(
        [], description="Lengths of pulses: beside each swap that lasts, one that swaps back after so many epochs."
    )
    controls: bool = Field(True, description="Run the control of every stressed family too.")
    schedules: list[list[list[int | str]]] = Field(
        [],
        description="Further schedules in full: lists of [start_epoch, activation, loss]. What else a phase puts in force follows as "
        "slot=name: learning_rate=tenth (half, double, tenfold, or your own as package.module:function).",
    )
    recipe: dict[str, Axis] = Field(
        {},
        description="Values of the base recipe to vary: key, e.g. training.learning_rate, to a list of choices, or to a range "
        "{low, high, log}; ranges not with kind grid. Keys of model and training but epochs, replicas and first_seed; data.train_size and "
        "data.label_noise.",
    )


class Resources(Section):
    """What a family may use."""

    cpus_per_family: float = Field(1.0, ge=0.1, le=10_000, description="CPUs reserved per family, and its number of threads (at least 1).")
    gpus_per_family: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of a GPU reserved per family; above 0 it trains there. 0.25 puts four families on each GPU, if CPUs suffice.",
    )
    executor: Literal["auto", "loop", "grouped", "vmap", "compiled"] = Field(
        "auto",
        description="How a family's replicas are computed: loop (one after the other), grouped (in blocks, side by side as groups of "
        "channels), vmap (all in one call), compiled (the same by torch.compile, with CUDA graphs on a GPU); auto takes grouped on a CPU "
        "and vmap on a GPU, and loop for models that forbid these.",
    )
    num_cpus: Annotated[int, Field(ge=1)] | None = Field(
        None, description="CPUs that the sweep may use on this machine; null takes those that the process may run on."
    )
    families_at_once: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Families asked for at once on a cluster that grows: those beyond the nodes there are wait, and have nodes started. "
        "null asks for what fits the nodes that are there.",
    )
    max_retries: int = Field(3, ge=0, description="Times that a family is started again after its worker died.")


class Storage(Section):
    """Where results go."""

    path: str = Field(
        "results",
        description="Folder or URI (s3://bucket/prefix, gs://bucket/prefix) below which <name> lies. Credentials: from the environment; "
        "another endpoint from AWS_ENDPOINT_URL or STORAGE_EMULATOR_HOST, or as s3://bucket/prefix?endpoint_override=http%3A%2F%2Fhost%3A9000.",
    )
    keep_states: bool = Field(False, description="Keep training states that no remaining family needs.")
    checkpoint_epochs: int = Field(
        0,
        ge=0,
        description="Save a training state every so many epochs, for retries of long families; 0 saves only at swaps.",
    )


class Analysis(Section):
    """What is computed at the end."""

    enabled: bool = Field(True, description="Whether the run ends with the analysis and the report.")
    measures: Annotated[list[MeasureName], Unique, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = Field(
        ["cka", "procrustes", "cka_debiased"],
        min_length=1,
        description="Distances between networks, one or a list, see docs/measures.md; `all` is every one; your own as package.module:name.",
    )
    image_statistics: bool = Field(
        True,
        description="Whether the images are measured, once per data set (entropy, edges, segments, ...), to ask what is learned when; some "
        "2,000 thumbnails are kept with the results. About 1 ms per image of 32 x 32 pixels and core.",
    )
    alpha: float = Field(0.05, gt=0.0, lt=1.0, description="Level of the tests, after correction over layers.")
    num_permutations: int = Field(
        9999, ge=99, description="Permutations of the tests of association. PERMDISP takes at most 999; bootstraps take 2000 resamples."
    )


class Sweep(Section):
    """A whole sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the sweep: its folder below storage.path.")
    data: Data = Field(default_factory=CellsData, description="The images and their splits.")
    model: Model = Field(default_factory=Model, description="The network.")
    training: Training = Field(default_factory=Training, description="Optimisation and replicas.")
    probes: Probes = Field(default_factory=Probes, description="What is recorded.")
    space: Space = Field(default_factory=Space, description="Which families there are.")
    search: Search = Field(default_factory=Search, description="Which of them are run.")
    resources: Resources = Field(default_factory=Resources, description="What a family may use.")
    storage: Storage = Field(default_factory=Storage, description="Where results go.")
    tracking: Annotated[list[Literal["tensorboard", "mlflow", "wandb"]], Unique] = Field(
        [],
        description="Trackers that are shown each family's accuracies as it trains, beside the tables; each needs its extra. Files lie in "
        "<name>/tracking, servers come from MLFLOW_TRACKING_URI and WANDB_API_KEY; without a key W&B writes offline.",
    )
    analysis: Analysis = Field(default_factory=Analysis, description="What is computed at the end.")

    @property
    def recipe(self) -> BaseRecipe:
        return BaseRecipe(data=self.data, model=self.model, training=self.training)

    @property
    def root(self) -> str:
        """The folder or URI of this sweep's results."""
        return below(os.path.expanduser(self.storage.path), self.name)


Kind = TypeVar("Kind", bound=Sweep)


def below(folder: str, name: str) -> str:
    """A file or folder of a folder, which may be a URI with options: these stay at the end."""
    path, mark, options = folder.partition("?") if "://" in folder else (folder, "", "")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def recipe_names() -> list[str]:
    return sorted(f.name.removesuffix(".yaml") for f in resources.files("sweep.recipes").iterdir() if f.name.endswith(".yaml"))


@overload
def load(config: str | None = None, overrides: list[str] | None = None) -> tuple[Sweep, str]: ...
@overload
def load(config: str | None, overrides: list[str] | None, kind: type[Kind]) -> tuple[Kind, str]: ...
def load(config: str | None = None, overrides: list[str] | None = None, kind: type[Sweep] = Sweep) -> tuple[Sweep, str]:
    """A sweep from a recipe's name or a file, with `key.key=value` overrides; and what to call its source. Raises ConfigError."""
    text, source = _read(DEFAULT_RECIPE if config is None else config)
    try:
        values = yaml.load(text, SweepLoader)
    except NOT_YAML as error:
        raise ConfigError(source, [f"not YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(values, dict):
        raise ConfigError(source, [f"a sweep file is a mapping of keys, this is {type(values).__name__}"])
    values = {key: value for key, value in values.items() if value is not None}  # an empty section means its defaults
    for override in overrides or []:
        _apply(values, override)
    if overrides:
        source += " with --set"
    try:
        return kind.model_validate(values), source
    except ValidationError as error:
        raise ConfigError(source, [explain(dict(e), Sweep) for e in error.errors()]) from None


def _read(config: str) -> tuple[str, str]:
    if "://" in config:
        return _read_uri(config)
    path = Path(config)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            return path.read_text(encoding="utf-8"), config
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(config, [f"cannot be read: {error}"]) from None
    names = recipe_names()
    if config not in names:
        raise ConfigError(
            config,
            [f"neither a file nor a shipped recipe; {near(config, names)}allowed: {', '.join(names)}, or a .yaml file"],
        )
    return (resources.files("sweep.recipes") / f"{config}.yaml").read_text(encoding="utf-8"), f"recipe {config}"


def _read_uri(uri: str) -> tuple[str, str]:
    import pyarrow as pa

    from analysis.storage import Store

    path, mark, options = uri.partition("?")
    folder, _, name = path.rpartition("/")
    try:
        return Store(f"{folder}{mark}{options}").read(name).decode("utf-8"), path  # options are not told
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(path, [f"cannot be read: {error}"]) from None


def _apply(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise ConfigError("--set", [f"{override!r} is not key.key=value"])
    *parents, last = path.split(".")
    if parents[:2] == ["space", "recipe"]:  # its keys have dots themselves
        parents, last = parents[:2], ".".join([*parents[2:], last])
    for key in parents:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError("--set", [f"{path}: {key!r} holds a value, not keys"])
    try:
        values[last] = yaml.load(text, SweepLoader)
    except NOT_YAML:
        raise ConfigError("--set", [f"{path}: {text!r} is not a YAML value"]) from None
