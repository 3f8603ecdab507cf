"""Every wrong input gives one message that names the file and key, the value, what is allowed, and the nearest valid name."""

import json
import math
import re
from itertools import combinations, product

import pytest
import torch
from pydantic import ValidationError

from analysis.measures.ornstein_uhlenbeck import MIN_TIMES
from analysis.measures.similarity import ALL, DEFAULT_MEASURES, MEASURES
from analysis.restoring import _more_epochs
from sweep.check import check, check_axes, check_here, families_at_once
from sweep.config import MEASURE_NAMES, ConfigError, Resources, Sweep, load, recipe_names
from sweep.plan import results_store
from sweep.space import recipe_of
from trainables import data as data_sets
from trainables.benchmark import WORKLOADS
from trainables.executors import EXECUTORS
from trainables.section import Section

SMALL = """
name: small
data: {source: cells, num_images: 160, image_size: 12, num_slides: 8}
training: {epochs: 4, batch_size: 16, replicas: 2}
model: {widths: [4]}
probes: {num_samples: 10}
space: {swap_epochs: [2]}
"""


def attempt(tmp_path, text=SMALL, overrides=()):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    config, source = load(str(path), list(overrides))
    check(config, source)
    return config


@pytest.mark.parametrize("name", ["breastmnist", "cells", "cifar10", "hull", "quick", "search"])
def test_shipped_recipes_are_valid(name):
    assert name in recipe_names()
    assert load(name)[0].name == name


def test_the_default_recipe_is_cells():
    assert load()[0] == load("cells")[0]


def test_overrides_are_yaml():
    config, _ = load("quick", ["training.replicas=4", "space.swap_epochs=[1,3]", "training.learning_rate=1e-3", "name=other"])
    assert (config.training.replicas, config.space.swap_epochs, config.training.learning_rate, config.root) == (
        4,
        [1, 3],
        1e-3,
        "results/other",
    )


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (
            ["training.replcias=4"],
            r"training\.replcias: unknown key; did you mean 'replicas'\? allowed: epochs, batch_size",
        ),
        (
            ["probes.baselines=[sharpnes]"],
            r"probes\.baselines\[0\]: 'sharpnes' is unknown; did you mean 'sharpness'\? allowed: calibration",
        ),
        (["probes.hull={poolling: mean}"], r"probes\.hull\.poolling: unknown key; did you mean 'pooling'\? allowed: layers, pooling"),
        (["probes.hull={layers: [blok1]}"], r"probes\.hull\.layers: unknown layer 'blok1'; did you mean 'block1'\?"),
        (["probes.stitching={step: 3}"], r"probes\.stitching\.step: unknown key; did you mean 'steps'\? allowed: layers, steps"),
        (["model.widths=[8, 99999999999999999999999]"], r"model\.widths\[1\]: 9{23} is refused: .*less than or equal to 65536"),
        (["training.replicas=99999999999999999999999"], r"training\.replicas: 9{23} is refused: .*less than or equal to 32767"),
        (["training.batch_size=99999999999999999999999"], r"training\.batch_size: 9{23} is refused; whole numbers .* to 4294967295"),
        (["probes.epochs=[99999999999999999999999]"], r"probes\.epochs: 9{23} is refused; whole numbers .* to 4294967295"),
        (["space.schedules=[[[99999999999999999999999, relu, focal]]]"], r"space\.schedules: 9{23} is refused; whole numbers"),
        (["space.recipe={training.batch_size: [99999999999999999999999]}"], r"space\.recipe\.training\.batch_size: 9{23} is refused"),
        (["space.recipe={training.batch_size: {low: 8, high: 99999999999999999999999}}"], r"space\.recipe\.training\.batch_size\S*: 9{23}"),
        (["training.epochs=99999999999999999999999"], r"training\.epochs: 9{23} is refused: input should be less than or equal to 1000000"),
        (["space.activations=[ReLU]"], r"space\.activations: unknown activation 'ReLU'; did you mean 'relu'\?"),
        (["trainnig.replicas=4"], r"trainnig: unknown key; did you mean 'training'\?"),
        (["data.sise=4"], r"data\.sise: unknown key; .*image_size"),
        (["data.source=nzp"], r"data\.source: 'nzp' is unknown; did you mean 'npz'\? allowed: cells, npz"),
        (["training.epochs=twelve"], r"training\.epochs: 'twelve' is refused: .*valid integer"),
        (["training.learning_rate=true"], r"training\.learning_rate: True is refused"),
        (
            ["training.optimizer=sdg"],
            r"training\.optimizer: 'sdg' is unknown; did you mean 'sgd'\? allowed: sgd, adamw",
        ),
        (
            ["training.replicas=1"],
            r"training\.replicas: 1 is refused: .*greater than or equal to 2.*Networks per family",
        ),
        (["training.nesterov=true", "training.momentum=0.0"], r"training: nesterov has no effect"),
        (["resources.gpus_per_family=1.5"], r"resources\.gpus_per_family: 1\.5 is refused: .*less than or equal to 1"),
        (
            ["resources.executor=vmpa"],
            r"resources\.executor: 'vmpa' is unknown; did you mean 'vmap'\? allowed: auto, loop, grouped, vmap, compiled",
        ),
        (["training.precision=tf32"], r"training\.precision: precision tf32 has no effect on a CPU"),
        (
            ["model={name: mobilenet_v2}", "resources.executor=vmap"],
            r"resources\.executor: vmap cannot train 'mobilenet_v2', .*allowed: auto, loop",
        ),
        (["search.num_families=5"], r"search: num_families belongs to the kinds random and optuna"),
        (["search.kind=random"], r"search: num_families belongs .* which need it"),
        (["search={kind: random, num_families: 3}", "space.swaps=[]"], r"search\.kind: random draws swaps, and the space has none"),
        (["space.recipe.training.learning_rat=[0.1]"], r"space\.recipe\.training\.learning_rat: cannot be varied; did you mean"),
        (["search.sampler=qmc"], r"search: sampler qmc does not go with kind grid; allowed: none"),
        (
            ["space.recipe={training.learning_rat: [0.1]}"],
            r"space\.recipe\.training\.learning_rat: cannot be varied; did you mean 'training\.learning_rate'\? allowed: data\.train_size",
        ),
        (["space.recipe={training.epochs: [3, 4]}"], r"space\.recipe\.training\.epochs: cannot be varied"),
        (["space.recipe={training.learning_rate: {low: 0.1, high: 1.0}}"], r"space\.recipe\.training\.learning_rate: a range has no grid"),
        (
            ["search={kind: random, num_families: 3}", "space.recipe={model.widths: {low: 1, high: 2}}"],
            r"space\.recipe\.model\.widths: holds no number",
        ),
        (
            ["space.recipe={training.learning_rate: [0.1, -1.0]}"],
            r"space\.recipe\.training\.learning_rate: -1\.0 is refused: .*greater than 0",
        ),
        (["space.recipe={training.learning_rate: {low: 2.0, high: 1.0}}"], r"space\.recipe\.training\.learning_rate: low is 2\.0"),
        (["space.recipe={training.learning_rate: {low: 2.0}}"], r"space\.recipe\.training\.learning_rate\.high: missing"),
        (["space.recipe={training.learning_rate: []}"], r"space\.recipe\.training\.learning_rate: \[\] is refused"),
        (["space.recipe={training.learning_rate: [1.0, 1.0]}"], r"space\.recipe\.training\.learning_rate: 1\.0 stands twice"),
        (
            ["space.recipe={training.nesterov: [true], training.momentum: [0.0, 0.9]}"],
            r"space\.recipe: training\.nesterov True, training\.momentum 0\.0: nesterov has no effect",
        ),
        (["space.recipe={model.name: [cnn, resnet81]}"], r"model\.name: unknown model 'resnet81'; did you mean 'resnet18'\?"),
        (["space.recipe={training.batch_size: [16, 500]}"], r"training\.batch_size: 500 is more than the \d+ training images"),
        (
            ["space.activations=[relu, tahn]"],
            r"space\.activations: unknown activation 'tahn'; did you mean 'tanh'\? allowed: relu",
        ),
        (
            ["space.losses=[cross_entrpy]"],
            r"space\.losses: unknown loss 'cross_entrpy'; did you mean 'cross_entropy'\?",
        ),
        (["space.activations=['nowhere:f']"], r"space\.activations: activation 'nowhere:f' cannot be imported"),
        (["model.name=resnet81"], r"model\.name: unknown model 'resnet81'; did you mean 'resnet18'\?"),
        (
            ["space.swap_epochs=[2, 4]"],
            r"space\.swap_epochs: a swap at epoch 4 lies outside the training; allowed: 1 to 3 \(training\.epochs is 4\)",
        ),
        (["space.pulse_epochs=[2]"], r"space\.pulse_epochs: a swap at epoch 4 lies outside"),
        (["space.swaps=[]", "space.controls=false"], r"space: is empty"),
        (
            ["space.schedules=[[[0, relu]]]"],
            r"space\.schedules\[0\]: .*a schedule is a list of \[start_epoch, activation, loss\]",
        ),
        (["data.train_size=5000"], r"data: .*5000"),
        (["training.batch_size=500"], r"training\.batch_size: 500 is more than the \d+ training images"),
        (["probes.num_samples=500"], r"probes\.num_samples: .*500.*test split has \d+"),
        (["probes.layers=[blok1]"], r"probes\.layers: unknown layer 'blok1'; did you mean 'block1'\?"),
        (["space.schedules=[[0, relu, cross_entropy]]"], r"space\.schedules\[0\]\[0\]: 0 is refused"),
        (["space.schedules=[[[0.5, relu, focal]]]"], r"space\.schedules\[0\]\[0\]\[0\]: 0\.5 is refused"),
        (["training.epochs=010"], r"training\.epochs: '010' is refused"),
        (
            ["analysis.measures=[cka_debised]"],
            r"analysis\.measures\[0\]: 'cka_debised' is unknown; did you mean 'cka_debiased'\? allowed: cka, ",
        ),
        (["analysis.measures=[cka, cka]"], r"analysis\.measures: 'cka' stands twice"),
        (["space.activations=[relu, relu]"], r"space\.activations: 'relu' stands twice"),
        (["probes.moments=[]"], r"probes\.moments: \[\] is refused"),
        (["training.learning_rate=.inf"], r"training\.learning_rate: inf is refused"),
        (["training.first_seed=100000000000000000000"], r"training\.first_seed: 1\d+ is refused"),
        (["resources.cpus_per_family=0.00001"], r"resources\.cpus_per_family: 1e-05 is refused"),
        (["training.epochs=1:30"], r"training\.epochs: '1:30' is refused"),
        (["model={name: alexnet}"], r"model: 'alexnet' cannot process images of 3x12x12"),
        (
            ["probes.epochs=[0, 2, 9, 5]"],
            r"probes\.epochs: \[5, 9\] are no epochs at which every family is evaluated; did you mean 4, 4\? allowed: 0 to 4$",
        ),
        (
            ["probes.epochs=[0, 2, 3, 6, 7, 10]", "probes.evaluate_every=3", "training.epochs=10"],
            r"probes\.epochs: \[2, 7\] are .*; did you mean 3, 6\? allowed: 0 and every 3 epochs \(probes\.evaluate_every\), and 10$",
        ),
        (["data={source: npz, name: nothere.npz, root: nowhere}"], r"data: .*nothere\.npz"),
        (["data={source: npz, name: breastmnst, root: nowhere, download: false}"], r"data: .*breastmnist"),
        (["data={source: torchvision, name: CIFAR01, root: nowhere}"], r"data: .*CIFAR10"),
        (["data={source: folder, path: nowhere}"], r"data: .*nowhere"),
    ],
)
def test_mistakes_are_explained(tmp_path, overrides, match):
    with pytest.raises(ConfigError) as caught:
        attempt(tmp_path, overrides=overrides)
    message = str(caught.value)
    assert re.search(match, message), message
    assert all(line.startswith(f"{tmp_path}/my.yaml with --set: ") for line in message.splitlines())


SEARCH = "search={kind: optuna, num_families: 3, objectives: [{metric: gap_accuracy, direction: maximize}]"


@pytest.mark.parametrize(
    ("search", "match"),
    [
        ("search={kind: optuna, num_families: 3}", r"search: objectives belong to kind optuna, which needs them"),
        ("search={kind: optuna, objectives: [{metric: gap_accuracy, direction: maximize}]}", r"search: num_families belongs to .* optuna"),
        ("search={objectives: [{metric: gap_accuracy, direction: maximize}]}", r"search: objectives belong to kind optuna, .*kind is grid"),
        ("search={kind: random, num_families: 3, sampler: tpe}", r"search: sampler tpe does not go with kind random; allowed: random, qmc"),
        ("search={storage: 'sqlite:///x.db'}", r"search: storage has no effect with kind grid"),
        ("search={kind: optnua}", r"search\.kind: 'optnua' is unknown; did you mean 'optuna'\?"),
        (f"{SEARCH}, objectvies: []}}", r"search\.objectvies: unknown key; did you mean 'objectives'\?"),
        (
            SEARCH.replace("gap_accuracy", "gap_acuracy") + "}",
            r"search\.objectives\[0\]\.metric: 'gap_acuracy' is no metric; did you mean 'gap_accuracy'\? allowed: train_accuracy",
        ),
        (
            SEARCH.replace("gap_accuracy", "spread/cka/blok1/end") + "}",
            r"search\.objectives\[0\]\.metric: 'spread/cka/blok1/end' is no metric; did you mean 'spread/cka/block1/end'\? .*block1, head",
        ),
        (SEARCH.replace("gap_accuracy", "diverged_at") + "}", r"'diverged_at' is no metric"),
        (
            SEARCH.replace("maximize", "maximise") + "}",
            r"search\.objectives\[0\]\.direction: 'maximise' is unknown; did you mean 'maximize'\?",
        ),
        (
            f"{SEARCH}, sampler_options: {{n_startup_trails: 4}}}}",
            r"search\.sampler_options\.n_startup_trails: unknown option; did you mean 'n_startup_trials'\? allowed: ",
        ),
        (f"{SEARCH}, sampler_options: {{gamma: 4}}}}", r"search\.sampler_options\.gamma: unknown option"),
        (f"{SEARCH}, sampler_options: {{seed: 4}}}}", r"search\.sampler_options\.seed: unknown option"),
        (
            f"{SEARCH}, sampler_options: {{n_startup_trials: many}}}}",
            r"search\.sampler_options\.n_startup_trials: 'many' is refused: allowed is int",
        ),
        (f"{SEARCH}, sampler: nsga2, sampler_options: {{population_size: 1}}}}", r"search\.sampler_options\..*population_size"),
        (f"{SEARCH}, pruning: {{kind: threshold}}}}", r"search\.pruning: lower belongs to kind threshold, which needs it"),
        (f"{SEARCH}, pruning: {{metric: loss}}}}", r"search\.pruning\.metric: 'loss' is unknown"),
        (
            SEARCH.replace("}]", "}, {metric: test_loss, direction: minimize}]") + ", pruning: {}}",
            r"search: pruning needs a single objective",
        ),
        (
            SEARCH.replace("}]", "}, {metric: gap_accuracy, direction: minimize}]") + "}",
            r"search: objectives: a metric stands twice",
        ),
    ],
)
def test_mistakes_in_a_search_are_explained(tmp_path, search, match):
    with pytest.raises(ConfigError) as caught:
        attempt(tmp_path, overrides=[search])
    assert re.search(match, str(caught.value)), str(caught.value)


def test_a_study_lies_beside_the_results_or_in_a_database(tmp_path):
    for storage in ("", ", storage: 'sqlite:///x.db'"):
        assert attempt(tmp_path, overrides=[SEARCH + storage + "}", "storage.path=s3://bucket"]).search.objectives


def test_a_search_without_a_swap_to_propose_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="space: is empty"):
        attempt(tmp_path, overrides=[SEARCH + "}", "space.swaps=[]"])


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("since", [1, 4, 7])
def test_what_the_analysis_advises_to_record_is_accepted_and_enough(tmp_path, every, since):
    """`restoring` asks for 5 times since the last swap: right after it, the end, and those in between that it names."""
    family = {"num_epochs": 12, "since_epoch": since, "recipe": json.dumps({"probes": {"evaluate_every": every}})}
    overrides = ["training.epochs=12", f"probes.evaluate_every={every}", *_more_epochs(family).split(" with ")]
    probes = attempt(tmp_path, overrides=overrides).probes
    assert 2 + sum(since < epoch < 12 for epoch in probes.epochs) >= MIN_TIMES
    assert probes.evaluate_every in (every, 1)


def test_one_measure_may_stand_alone(tmp_path):
    assert attempt(tmp_path, overrides=["analysis.measures=all"]).analysis.measures == ["all"]


RULES = {
    "training.nesterov": [False, True],
    "training.optimizer": ["sgd", "adamw"],
    "training.momentum": [0.9, 0.0],
    "training.learning_rate": [0.1, 0.2],
    "training.warmup_epochs": [0, 4],
    "model.widths": [[4], [4, 8]],
}


@pytest.mark.parametrize("keys", [keys for n in (2, 3, 4) for keys in combinations(RULES, n)], ids="-".join)
def test_axes_are_refused_exactly_where_their_product_has_a_refusal(keys):
    config, _ = load("quick", [f"space.recipe={json.dumps({key: RULES[key] for key in keys})}"])
    refused = []
    for values in product(*(RULES[key] for key in keys)):
        try:
            recipe_of(config, tuple(zip(keys, map(json.dumps, values), strict=True)))
        except ValidationError as error:
            refused.append(str(error.errors()[0]["ctx"]["error"]))
    problems = check_axes(config)
    assert bool(problems) == bool(refused)
    assert all(any(why in problem for why in refused) for problem in problems)


@pytest.mark.timeout(30)
def test_many_long_axes_are_checked_without_their_product():
    """Ten axes of six values: their product would take half an hour."""
    numbers = ["learning_rate", "momentum", "weight_decay", "clip_norm", "shift_px", "batch_size", "warmup_epochs"]
    values = [[(k + 1) / 100 for k in range(6)]] * 4 + [[*range(6)], [*range(2, 8)], [*range(3)]]
    axes = dict(zip(numbers, values, strict=True)) | {"flip": [False, True], "schedule": ["cosine", "step"], "optimizer": ["sgd", "adamw"]}
    config = load("quick", [f"space.recipe={json.dumps({f'training.{key}': axis for key, axis in axes.items()})}"])[0]
    assert check_axes(config) == []


def test_every_mistake_is_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        attempt(tmp_path, overrides=["space.activations=[tahn]", "space.losses=[focl]", "space.swap_epochs=[9]"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: [", "not YAML"),
        (f"name: {'[' * 3000}{']' * 3000}", "not YAML: maximum recursion depth"),
        ("- 1", "is a mapping"),
        ("training: {epochs: 3}", "name: missing"),
        ("name: a/b", "name: 'a/b' is refused"),
    ],
)
def test_files_that_are_no_sweep_files(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        attempt(tmp_path, text)


def test_an_unknown_recipe_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"brestmnist: neither a file nor a shipped recipe; did you mean 'breastmnist'\?"):
        load("brestmnist")
    with pytest.raises(ConfigError, match="neither a file nor a shipped recipe"):
        load("")  # a variable of the shell that is not set
    with pytest.raises(ConfigError, match="cannot be read"):
        load("nowhere.yaml")
    with pytest.raises(ConfigError, match=r"'training' is not key\.key=value"):
        load("quick", ["training"])


@pytest.mark.parametrize("body", ["1 / 0", "def f(:", "raise SystemExit(3)"])
def test_a_users_module_that_cannot_be_imported(tmp_path, monkeypatch, body):
    (tmp_path / f"broken{len(body)}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=rf"space\.activations: activation 'broken{len(body)}:f' cannot be imported"):
        attempt(tmp_path, overrides=[f"space.activations=[relu, 'broken{len(body)}:f']"])


def test_anchors_merges_and_empty_sections_are_understood(tmp_path):
    (tmp_path / "a.yaml").write_text(SMALL.replace("name: small", "name: small\nresources:\nanalysis:"))
    assert load(str(tmp_path / "a.yaml"))[0].resources == load("quick")[0].resources
    (tmp_path / "b.yaml").write_text("name: x\ntraining: {<<: &t {epochs: 9, replicas: 3}, replicas: 4}\nspace: {swap_epochs: [1]}")
    training = load(str(tmp_path / "b.yaml"))[0].training
    assert (training.epochs, training.replicas) == (9, 4)
    chain = "name: x\ntraining: &t {<<: &u {epochs: 9, replicas: 3}, replicas: 4}\nmodel: {name: mlp}\nspace: {swap_epochs: [1]}"
    (tmp_path / "c.yaml").write_text(chain)
    assert load(str(tmp_path / "c.yaml"), ["training.epochs=7"])[0].training.replicas == 4


def test_a_cluster_that_does_not_answer_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    config = attempt(tmp_path, overrides=[f"storage.path={tmp_path}"])
    with pytest.raises(ConfigError, match=r"nothing answers at '127\.0\.0\.1:1'; unset it"):
        check_here(config, results_store(config), "my.yaml")


def test_a_bucket_must_be_named():
    with pytest.raises(ConfigError, match="names no bucket"):
        results_store(load("quick", ["storage.path=s3://"])[0])


def test_the_home_folder_is_understood():
    assert "~" not in load("quick", ["storage.path=~/x"])[0].root


def test_a_results_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    config = attempt(tmp_path, overrides=[f"storage.path={tmp_path}/file"])
    with pytest.raises(ConfigError, match=r"storage\.path: .*cannot be written"):
        check_here(config, results_store(config), "my.yaml")


def test_a_network_for_which_there_is_no_memory_is_refused(monkeypatch):
    """As torch says it of one of 154 GB; here of a smaller one, where that much would be there."""
    config, source = load("quick", ["model.widths=[65536, 65536]"])
    empty = torch.empty

    def full(*size, **options):
        if math.prod(size[0] if size and isinstance(size[0], tuple) else size) > 2**30:
            raise RuntimeError("can't allocate memory: you tried to allocate 154618822656 bytes\nand more")
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(ConfigError, match=r"^recipe quick with --set: model: 'cnn' cannot be built: can't allocate memory.*bytes$"):
        check(config, source)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["resources.cpus_per_family=3.0", "resources.num_cpus=2"], r"resources\.cpus_per_family: 3 is more than the 2 CPUs"),
        (["resources.gpus_per_family=1.0"], r"resources\.gpus_per_family: 1, but this machine has \d+ GPUs"),
    ],
)
def test_what_the_machine_lacks_is_refused_where_it_would_run_but_can_be_planned(tmp_path, overrides, match):
    config = attempt(tmp_path, overrides=[*overrides, f"storage.path={tmp_path}"])
    with pytest.raises(ConfigError, match=match):
        check_here(config, results_store(config), "my.yaml")


@pytest.mark.parametrize(
    ("cpus_per_family", "gpus_per_family", "cpus", "gpus", "slots"),
    [
        (1.0, 0.0, 4, 0, 4),
        (1.0, 0.25, 16, 2, 8),
        (1.0, 0.25, 3, 2, 3),
        (1.0, 0.4, 16, 2, 4),
        (0.1, 0.1, 3, 1, 10),
        (2.0, 1.0, 3, 2, 1),
        (0.3, 0.0, 3, 0, 10),
    ],
)
def test_as_many_families_at_once_as_fit(cpus_per_family, gpus_per_family, cpus, gpus, slots):
    wanted = Resources(cpus_per_family=cpus_per_family, gpus_per_family=gpus_per_family)
    assert families_at_once(wanted, cpus, gpus) == slots


def test_every_executor_can_be_asked_for():
    assert Resources.model_json_schema()["properties"]["executor"]["enum"] == ["auto", *EXECUTORS]


@pytest.mark.parametrize(("workload", "recipe"), [("small", "cells"), ("cifar10", "cifar10")])
def test_the_benchmark_trains_what_the_recipes_train(workload, recipe):
    """All but the number of replicas, which the benchmark varies."""
    config, timed = load(recipe)[0], WORKLOADS[workload]
    assert timed.model == config.model
    assert timed.training == config.training.model_copy(update={"replicas": timed.training.replicas})
    if workload == "small":
        data = data_sets.load(config.data)
        assert (timed.image_shape, timed.num_classes, timed.num_train) == (data.image_shape, data.num_classes, len(data.train))


def test_every_key_is_described():
    def walk(section: type[Section], path: str):
        for key, field in section.model_fields.items():
            assert field.description, f"{path}.{key} has no description"
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                walk(field.annotation, f"{path}.{key}")

    walk(Sweep, "sweep")


def test_measures_are_those_of_the_analysis():
    assert (*MEASURES, ALL) == MEASURE_NAMES
    assert tuple(Sweep(name="x").analysis.measures) == DEFAULT_MEASURES
