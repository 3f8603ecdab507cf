"""How fast families train under each executor: `python -m trainables.benchmark`. Needs no Ray and no data on disk.

What is timed are whole epochs of `FamilyTraining` on random images of a recipe's shape, drawing and augmenting included. All that is
compared is run in turns, round after round, so that a machine that slows down slows all of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainables.data import Dataset, Split
from trainables.executors import EXECUTORS
from trainables.family import free_gpu, prepare_process
from trainables.losses import cross_entropy
from trainables.models import build
from trainables.precision import Precision, autocast, check_precision, products
from trainables.provenance import provenance
from trainables.recipe import BaseRecipe, Model, Training
from trainables.replicas import Executor
from trainables.schedule import Phase
from trainables.training import FamilyTraining


@dataclass(frozen=True)
class Workload:
    """The sizes of a shipped recipe."""

    model: Model
    training: Training
    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int


WORKLOADS = {
    "small": Workload(  # recipe cells
        Model(name="cnn", widths=[8, 16, 32]),
        Training(epochs=10, batch_size=32, learning_rate=0.05, momentum=0.9, schedule="cosine"),
        (3, 20, 20),
        2,
        400,
    ),
    "cifar10": Workload(
        Model(name="cnn", widths=[64, 128, 256]),
        Training(
            epochs=20,
            batch_size=128,
            learning_rate=0.1,
            momentum=0.9,
            weight_decay=5e-4,
            schedule="cosine",
            warmup_epochs=2,
            flip=True,
            shift_px=4,
        ),
        (3, 32, 32),
        10,
        45_000,
    ),
}


@dataclass
class Timed:
    """Something that trains on `num_samples` replica-samples a call, and how many per second it came to, by round."""

    call: Callable[[], None]
    num_samples: int
    first_s: float = 0.0
    rates: list[float] = field(default_factory=list)
    failed: str | None = None

    def round(self, seconds: float, device: torch.device) -> None:
        if self.failed:
            return
        began, num_calls = _clock(device), 0
        try:
            while True:
                self.call()
                _wait(device)
                num_calls += 1
                elapsed = _clock(device) - began
                if elapsed >= max(seconds, 1e-6):
                    break
        except torch.OutOfMemoryError:
            self.failed = "out of memory"
            free_gpu()
            return
        self.rates.append(num_calls * self.num_samples / elapsed)


def _clock(device: torch.device) -> float:
    """Seconds: of this process's CPU time where one thread computes, so that other work on its core does not count; else of the wall."""
    return time.process_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def synthetic(workload: Workload, num_train: int) -> Dataset:
    """Random images with random labels."""
    generator = torch.Generator().manual_seed(0)

    def split(num: int) -> Split:
        images = torch.randn(num, *workload.image_shape, generator=generator)
        labels = torch.randint(workload.num_classes, (num,), generator=generator)
        return Split(torch.arange(num), images, labels, labels, None)

    names = [str(index) for index in range(workload.num_classes)]
    return Dataset(split(num_train), split(1), split(1), workload.num_classes, names, "0" * 64, "0" * 64, [])


def family(workload: Workload, data: Dataset, num_replicas: int, executor: Executor, device: str, precision: Precision) -> Timed:
    """A family that trains an epoch a call."""
    config = workload.training.model_copy(update={"replicas": num_replicas, "precision": precision})
    recipe = BaseRecipe(model=workload.model, training=config)
    training = FamilyTraining(recipe, data, Phase(0, "relu", "cross_entropy"), device, executor)

    def epoch() -> None:
        training.epoch = 0
        training.train_epoch()
        if not all(training.alive):
            raise RuntimeError("a replica diverged, and what stands still is not worth timing")

    return Timed(epoch, num_replicas * training.steps_per_epoch * config.batch_size)


def one_network(workload: Workload, batch_size: int, layout: torch.memory_format, device: torch.device, precision: Precision) -> Timed:
    """One plain network that trains a step a call on one batch that stays: nothing but the computation."""
    torch.manual_seed(0)
    model = build(workload.model, workload.image_shape, workload.num_classes).to(device)
    model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's own stubs lack it
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, workload.training.momentum, fused=True)
    images = torch.randn(batch_size, *workload.image_shape, device=device).to(memory_format=layout)
    labels = torch.randint(workload.num_classes, (batch_size,), device=device)

    def step() -> None:
        with products(precision):
            optimizer.zero_grad()
            with autocast(precision, device):
                logits = model(images)
            cross_entropy(logits.float(), labels).backward()
            optimizer.step()

    return Timed(step, batch_size)


def flops_per_sample(workload: Workload) -> float:
    """Floating-point operations of one sample forward and backward, as torch counts them: products of matrices and convolutions."""
    model = build(workload.model, workload.image_shape, workload.num_classes)
    images, labels = torch.randn(4, *workload.image_shape), torch.zeros(4, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images), labels).backward()
    return counter.get_total_flops() / 4


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time everything in turns. The result is what `--json` writes."""
    workload, device = WORKLOADS[options.model], torch.device(options.device)
    batch_size = workload.training.batch_size
    data = synthetic(workload, options.steps * batch_size if options.steps else workload.num_train)
    wanted: list[tuple[Executor, int]] = list(dict.fromkeys([("loop", 1), *((e, r) for e in options.executors for r in options.replicas)]))
    families = {key: family(workload, data, key[1], key[0], options.device, options.precision) for key in wanted}
    layouts = (torch.contiguous_format, torch.channels_last)
    limits = {
        num_replicas: [one_network(workload, num_replicas * batch_size, layout, device, options.precision) for layout in layouts]
        for num_replicas in sorted({num_replicas for _, num_replicas in wanted})
    }
    everything = [*families.values(), *(timed for both in limits.values() for timed in both)]
    for timed in everything:
        began = time.perf_counter()
        timed.round(0.0, device)
        timed.first_s = time.perf_counter() - began
        timed.rates.clear()
    for _ in range(options.rounds):
        for timed in everything:
            timed.round(options.seconds, device)
    flops, alone = flops_per_sample(workload), families["loop", 1].rates
    rows = []
    for (executor, num_replicas), timed in families.items():
        row: dict[str, Any] = {"executor": executor, "replicas": num_replicas, "failed": timed.failed, "first_epoch_s": timed.first_s}
        if not timed.failed:
            limit = [max(pair) for pair in zip(*(x.rates for x in limits[num_replicas] if not x.failed), strict=True)]
            row["samples_per_s"] = timed.rates
            row["flop_per_s"] = [rate * flops for rate in timed.rates]
            row["times_separate_runs"] = [rate / one for rate, one in zip(timed.rates, alone, strict=True)]
            row["share_of_limit"] = [rate / most for rate, most in zip(timed.rates, limit, strict=False)]
        rows.append(row)
    return {"options": vars(options), "where": where(device), "flop_per_sample": flops, "rows": rows}


def where(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {**provenance(), "gpu": gpu, "cuda": torch.version.cuda}


_EXPLANATION = """\
replica-samples/s: training samples times replicas. FLOP/s: as torch counts matrix products and convolutions, forward and backward.
x separate: against one replica after the other, each alone under `loop`. of limit: against one plain network of this architecture on
a batch as large as all replicas' batches together, in the faster of two memory layouts. Median [least, most] over rounds. Seconds are of
the wall, or of CPU time where one CPU thread computes; of the first epoch always of the wall."""


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    options, place = result["options"], result["where"]
    print(
        f"{options['model']}: batch {WORKLOADS[options['model']].training.batch_size}, {options['precision']}, "
        f"{result['flop_per_sample'] / 1e6:.1f} MFLOP per sample, {options['rounds']} rounds of {options['seconds']:g} s\n"
        f"on {options['device']}: {place['gpu'] or place['processor']}, {place['num_threads']} thread(s), "
        f"torch {place['versions']['torch']}, CUDA {place['cuda']}, Python {place['python']}\n\n"
        f"{'executor':<9}{'replicas':>9}{'replica-samples/s':>32}{'GFLOP/s':>10}{'x separate':>20}{'of limit':>20}{'first epoch':>13}"
    )
    for row in result["rows"]:
        line = f"{row['executor']:<9}{row['replicas']:>9}"
        if row["failed"]:
            print(f"{line}  {row['failed']}")
            continue
        shares = _spread(row["share_of_limit"], ".2f") if row["share_of_limit"] else "out of memory"
        print(
            f"{line}{_spread(row['samples_per_s'], ',.0f'):>32}{statistics.median(row['flop_per_s']) / 1e9:>10,.1f}"
            f"{_spread(row['times_separate_runs'], '.2f'):>20}{shares:>20}{row['first_epoch_s']:>11.1f} s"
        )
    print(f"\n{_EXPLANATION}")


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is refused: at least 1")
    return number


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainables.benchmark", description="Time the training of families. Needs no Ray.")
    parser.add_argument("--model", choices=list(WORKLOADS), default="small", help="network, images and optimizer of a shipped recipe")
    parser.add_argument("--replicas", type=_positive, nargs="+", default=[1, 8, 32, 128], metavar="R")
    parser.add_argument("--executors", choices=list(EXECUTORS), nargs="+", default=list(EXECUTORS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["float32", "tf32", "bf16"], default="float32")
    parser.add_argument("--seconds", type=float, default=1.0, help="shortest time of each in a round; an epoch is never cut")
    parser.add_argument("--rounds", type=_positive, default=5)
    parser.add_argument("--steps", type=_positive, help="steps per epoch; as many as the recipe's if left out")
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads of the process")
    parser.add_argument("--json", metavar="FILE", help="write every round here")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    try:
        check_precision(options.precision, options.device)
    except ValueError as error:
        parser.error(f"--precision: {error}")
    prepare_process(options.threads)
    try:
        result = measure(options)
    except KeyboardInterrupt:
        return 130
    show(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
