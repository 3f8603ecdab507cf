"""Whatever a sweep file says, it plans or is refused in a message that a person can read. Never a traceback."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from analysis.storage import Store
from sweep.check import check
from sweep.config import ConfigError, Sweep, load
from sweep.plan import make_plan

BASE: dict[str, Any] = {
    "name": "any",
    "data": {"source": "cells", "num_images": 64, "image_size": 12, "num_slides": 8},
    "model": {"name": "mlp", "widths": [4]},
    "training": {"epochs": 3, "batch_size": 8, "replicas": 2},
    "probes": {"num_samples": 4},
    "space": {"activations": ["relu", "tanh"], "losses": ["cross_entropy"], "swap_epochs": [1, 2]},
}


def fitting(annotation: Any) -> list[Any]:
    """Values of a field's type, most of them within its bounds."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    small = {int: [1, 2, 3, 4], float: [0.1, 0.5, 0.9], bool: [True, False], type(None): [None]}
    if annotation in small or get_origin(annotation) is list:
        return small.get(annotation) or [[], *([value] for value in fitting(get_args(annotation)[0]))]
    return [value for part in get_args(annotation) if not isinstance(part, (FieldInfo, str)) for value in fitting(part)]


def keys_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], list[Any]]:
    """Every key of the sweep file, sections included, and values that fit it."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for name, field in model.model_fields.items():
        found[*path, name] = fitting(field.annotation)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= keys_of(kind, (*path, name))
    return found


# Where work grows with the value, large ones are real requests for large amounts of work.
FITTING = {key: values for key, values in keys_of(Sweep).items() if key != ("data", "num_images")}
KEYS = [*FITTING, ("nonsense",), ("training", "epohcs")]
NAMES = [
    "relu",
    "tanh",
    "gelu",
    "nope",
    "os:system",
    "no.such:thing",
    "cross_entropy",
    "hinge",
    "cka",
    "end",
    "cnn",
    "mlp",
    "resnet18",
    "head",
]
NAMES += ["grid", "random", "optuna", "tpe", "loop", "vmap", "adamw", "../x", "", "é\n", "x" * 300, "{}", "[red]", "s3://", "file:///nope"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, 4, 5, 7, -1, 10**18, 0.0, 0.1, 0.5, 1.0, 1.5, -0.1, 1e-30, 1e30, float("nan"), float("inf")]),
    st.sampled_from(NAMES),
)
VALUES = st.one_of(
    LEAVES,
    st.lists(LEAVES, max_size=3),
    st.dictionaries(
        st.sampled_from(["low", "high", "log", "kind", "metric", "direction", "training.learning_rate", "model.widths"]), LEAVES, max_size=3
    ),
    st.just([[0, "relu", "cross_entropy"], [1, "tanh", "cross_entropy"]]).map(lambda schedule: [schedule]),
    st.just({"training.learning_rate": [0.1, 0.2]}),
    st.just({"kind": "random", "num_families": 3}),
    st.just({"kind": "optuna", "num_families": 2, "objectives": [{"metric": "gap_accuracy", "direction": "maximize"}]}),
)
FITS = st.sampled_from([(key, value) for key, values in FITTING.items() for value in values])
EDITS = st.one_of(
    st.lists(FITS, min_size=1, max_size=3), st.lists(st.one_of(FITS, st.tuples(st.sampled_from(KEYS), VALUES)), min_size=1, max_size=3)
)


def outcome(folder, edits: list[tuple[tuple[str, ...], Any]]) -> str:
    """`planned`, or the message of the refusal. Whatever else is raised is a bug."""
    values = yaml.safe_load(yaml.safe_dump(BASE))
    for key, value in edits:
        at = values
        for part in key[:-1]:
            if not isinstance(at.get(part), dict):
                at[part] = {}
            at = at[part]
        at[key[-1]] = value
    (folder / "any.yaml").write_text(yaml.safe_dump(values, allow_unicode=True))
    try:
        config, source = load(str(folder / "any.yaml"))
        data = check(config, source)
        plan = make_plan(config, data, Store(folder / "results"))
    except ConfigError as error:
        return str(error)
    assert plan.families or plan.num_unproposed
    return "planned"


def is_readable(message: str) -> bool:
    """Every line names the file and something in it."""
    lines = message.splitlines()
    return bool(lines) and "Traceback" not in message and len(message) < 20_000 and message.count("any.yaml") >= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


OPTIONS = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=150, **OPTIONS)
@given(edits=EDITS)
def test_any_configuration_plans_or_is_refused(folder, edits):
    message = outcome(folder, edits)
    assert message == "planned" or is_readable(message), message


@pytest.mark.slow
@settings(max_examples=2000, **OPTIONS)
@given(edits=EDITS)
def test_thousands_of_configurations_plan_or_are_refused(folder, edits):
    message = outcome(folder, edits)
    assert message == "planned" or is_readable(message), message


@settings(max_examples=100, **OPTIONS)
@given(text=st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_any_text_is_a_sweep_file_or_is_refused(folder, text):
    (folder / "any.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    message = None
    try:
        load(str(folder / "any.yaml"))
    except ConfigError as error:
        message = str(error)
    assert message is None or is_readable(message), message


@settings(max_examples=100, **OPTIONS)
@given(
    override=st.one_of(
        st.text(max_size=40), st.tuples(st.sampled_from([".".join(key) for key in KEYS]), st.text(max_size=20)).map("=".join)
    )
)
def test_any_override_is_taken_or_refused(override):
    message = None
    try:
        load("quick", [override])
    except ConfigError as error:
        message = str(error)
    assert message != ""


def test_the_keys_are_those_of_the_sweep_file():
    assert ("training", "learning_rate") in KEYS
    assert ("search", "pruning", "percentile") in KEYS
    assert ("probes", "stitching", "steps") in KEYS
