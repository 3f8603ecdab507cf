"""The plain side of `sweep_vs_plain_tune.py`: the script that one would write with Ray Tune's documentation at hand.

One network per trial, a function trainable, a `DataLoader`, every trial from scratch, one folder of Parquet files per trial with pandas'
defaults. Networks, losses, seeds and the order of the data are the sweep's, so that both sides train the same networks.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch
from ray import tune
from torch.utils.data import DataLoader, TensorDataset

from sweep.config import load
from sweep.space import points
from trainables.activations import ACTIVATIONS, swap_activation
from trainables.data import Dataset
from trainables.data import load as load_data
from trainables.losses import LOSSES
from trainables.models import build, default_layers
from trainables.probes.activations import probe_set, rows
from trainables.streams import stream, stream_seed
from trainables.training import learning_rate


class EpochOrder(torch.utils.data.Sampler[int]):
    """The sweep's order of an epoch."""

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples, self.seed, self.epoch = num_samples, seed, 0

    def __iter__(self) -> Any:
        return iter(torch.randperm(self.num_samples, generator=stream(self.seed, "order", self.epoch)).tolist())

    def __len__(self) -> int:
        return self.num_samples


def train(config: dict[str, Any], data: Dataset) -> None:
    sweep, phases, seed = config["sweep"], config["phases"], config["seed"]
    training = sweep.training
    torch.manual_seed(stream_seed(seed, "init"))
    model = build(sweep.model, data.image_shape, data.num_classes)
    loss = torch.nn.Identity()
    optimizer = torch.optim.SGD(model.parameters(), training.learning_rate, training.momentum, weight_decay=training.weight_decay)
    order = EpochOrder(len(data.train.labels), seed)
    splits = {name: getattr(data, name) for name in ("train", "val", "test")}
    sets = {name: TensorDataset(split.images, split.labels) for name, split in splits.items()}
    loader = DataLoader(sets["train"], batch_size=training.batch_size, sampler=order, drop_last=True)
    eval_loaders = {name: DataLoader(dataset, batch_size=training.batch_size) for name, dataset in sets.items()}
    probed = data.test.images[probe_set(data, sweep.probes)]
    layers = sweep.probes.layers or default_layers(model)
    curves: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []
    activations: list[dict[str, Any]] = []

    def evaluate(moment: str, epoch: int) -> None:
        model.eval()
        for name, eval_loader in eval_loaders.items():
            with torch.no_grad():
                logits = torch.cat([model(images) for images, _ in eval_loader])
            labels, predicted = splits[name].labels, logits.argmax(1)
            row = {"epoch": epoch, "moment": moment, "split": name, "accuracy": (predicted == labels).float().mean().item()}
            curves.append(row | {other: LOSSES[other](logits, labels).item() for other in LOSSES})
            if name != "val":
                predictions.append({"epoch": epoch, "moment": moment, "split": name, "predicted": predicted.tolist()})

    def record_activations(moment: str, epoch: int) -> None:
        model.eval()
        outputs: dict[str, torch.Tensor] = {}
        handles = [
            model.get_submodule(layer).register_forward_hook(lambda m, a, output, layer=layer: outputs.__setitem__(layer, output))
            for layer in layers
        ]
        with torch.no_grad():
            model(probed)
        for handle in handles:
            handle.remove()
        for layer, output in outputs.items():
            for sample, values in enumerate(rows(output, sweep.probes.pooling).tolist()):
                activations.append({"moment": moment, "epoch": epoch, "layer": layer, "sample": sample, "activation": values})

    def begin(phase: list[Any]) -> None:
        nonlocal loss
        swap_activation(model, ACTIVATIONS.resolve(phase[1]))
        loss = LOSSES.resolve(phase[2])

    begin(phases[0])
    record_activations("init", 0)
    evaluate("epoch", 0)
    starts = {phase[0]: phase for phase in phases[1:]}
    every, train_s = sweep.probes.evaluate_every, 0.0
    for epoch in range(training.epochs):
        if epoch in starts:
            if epoch % every:
                evaluate("epoch", epoch)
            record_activations("before_swap", epoch)
            begin(starts[epoch])
            record_activations("after_swap", epoch)
            evaluate("after_swap", epoch)
        model.train()
        order.epoch = epoch
        began = time.perf_counter()
        for index, (images, labels) in enumerate(loader):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, epoch * len(loader) + index, len(loader))
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()
        train_s += time.perf_counter() - began
        if (epoch + 1) % every == 0 or epoch + 1 == training.epochs:
            evaluate("epoch", epoch + 1)
        tune.report({"test_accuracy": curves[-1]["accuracy"], "epoch": epoch + 1})
    record_activations("end", training.epochs)
    folder = Path(config["folder"]) / f"{config['schedule'].replace(' ', '_').replace('/', '-').replace(':', '-')}_{seed}"
    folder.mkdir(parents=True)
    identity = {"schedule": config["schedule"], "seed": seed, "train_s": train_s}
    for name, table in (("epochs", curves), ("predictions", predictions), ("activations", activations)):
        pd.DataFrame(table).assign(**identity).to_parquet(folder / f"{name}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--cpus", type=int, required=True)
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    sweep, _ = load(options.config)
    out = str(Path(options.out).absolute())
    networks = [
        {
            "sweep": sweep,
            "schedule": str(schedule),
            "phases": [[p.start_epoch, p.activation, p.loss] for p in schedule.phases],
            "seed": sweep.training.first_seed + replica,
            "folder": f"{out}/networks",
        }
        for schedule in [point.schedule for point in points(sweep)]
        for replica in range(sweep.training.replicas)
    ]
    ray.init(num_cpus=options.cpus, include_dashboard=False)

    def trainable(config: dict[str, Any], data: Dataset) -> None:
        train(config["network"], data)

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, data=load_data(sweep.data)), {"cpu": 1}),
        param_space={"network": tune.grid_search(networks)},
        run_config=tune.RunConfig(name="plain", storage_path=f"{out}/tune"),
    )
    results = tuner.fit()
    print(f"{len(results)} trials, {results.num_errors} errors")


if __name__ == "__main__":
    main()
