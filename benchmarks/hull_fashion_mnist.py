"""The published statement on full Fashion-MNIST: do all test images lie outside the hull of the training set, in pixels and in features?

    python benchmarks/hull_fashion_mnist.py --root data [--epochs 3] [--replicas 2] [--samples 10000] [--null 1000] [--keep FOLDER]

Trains a CNN on all 60,000 images and locates the test images, or as many of them as asked for, relative to the hull of all training images:
in pixels, in the 64 features of its last hidden layer (as many as the publication has) and in its logits, each beside a Gaussian null of
the same mean, covariance and number of points. Times are CPU time of the process.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import tables
from analysis.storage import Store
from trainables.data import load
from trainables.family import Family, prepare_process, run
from trainables.options import Hull, Probes
from trainables.probes.hull_pixels import pixel_hull
from trainables.recipe import BaseRecipe, Model, TorchvisionData, Training
from trainables.schedule import Schedule

WIDTHS, LAYERS = [8, 16, 64], ["pool", "head"]


def summary(rows: pd.DataFrame) -> str:
    """A line of the table: how many lie where, how well that is certified, and how far."""
    counts = rows["status"].value_counts()
    relative = rows["distance"] / rows["nearest_distance"].where(rows["nearest_distance"] > 0)
    outside = rows[rows["status"] == "outside"]
    numbers = [
        f"{len(rows):,}",
        f"{counts.get('outside', 0) / len(rows):.2%}",
        f"{counts.get('inside', 0):,} / {counts.get('undecided', 0):,}",
        f"{outside['relative_gap'].max():.1e}" if len(outside) else "–",
        f"{relative.median():.3f}",
        f"{(rows['distance'] / rows['median_distance']).median():.3f}",
        f"{rows['support_size'].mean():.1f} / {rows['support_size'].max()}",
    ]
    return " | ".join(numbers)


def followed(rows: pd.DataFrame) -> str:
    """How often the predicted class is another at the projection, and how far those lie that are predicted wrongly and correctly."""
    rows = rows[rows["kind"] == "sample"]
    relative = rows["distance"] / rows["nearest_distance"].where(rows["nearest_distance"] > 0, np.inf)
    wrong = rows["predicted"] != rows["label"]
    changed, num = (rows["predicted"] != rows["predicted_projection"]).mean(), rows["crossings"].map(len).mean()
    return f"{changed:.2%} | {num:.3f} | {relative[~wrong].mean():.3f} | {relative[wrong].mean():.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--null", type=int, default=1000)
    parser.add_argument("--train-size", type=int, help="fewer training images, for a try")
    parser.add_argument("--keep", type=Path, help="where the tables go; default: nowhere")
    options = parser.parse_args()
    prepare_process(1)
    recipe = BaseRecipe(
        data=TorchvisionData(
            source="torchvision", name="FashionMNIST", root=options.root, val_fraction=0.0, train_size=options.train_size, download=False
        ),
        model=Model(name="cnn", widths=WIDTHS),
        training=Training(epochs=options.epochs, batch_size=64, replicas=options.replicas, learning_rate=0.05, schedule="cosine"),
    )
    data = load(recipe.data)
    hull = Hull(train_size=None, null_samples=options.null)
    probes = Probes(num_samples=options.samples, layers=LAYERS, evaluate_every=options.epochs, baselines=[], predictions=False, hull=hull)
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "numpy", "scipy"))
    print(f"Python {platform.python_version()}, {packages}; {len(data.train):,} x {np.prod(data.image_shape)}, {options.samples:,} queries")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(options.keep or folder)
        began = time.process_time()
        pixels = pixel_hull(store, data, probes, progress=True)
        pixels_s = time.process_time() - began
        print(f"pixels: {pixels_s:.1f} s, {len(pixels):,} queries, null included: {pixels_s * 1000 / len(pixels):.1f} ms each", flush=True)
        began = time.process_time()
        list(run(Family(recipe, probes, Schedule.of([[0, "relu", "cross_entropy"]])), store))
        print(f"training of {options.replicas} networks and layers: {time.process_time() - began:.1f} s")
        accuracy = tables.read(store, "replicas", ["train_accuracy", "test_accuracy"])
        print("train and test accuracy: " + ", ".join(f"{a:.3f} {b:.3f}" for a, b in accuracy.itertuples(index=False)))
        rows = tables.read(store, "hull")
    print("\nlayer | features | replica | queries | number | outside, certified | inside / undecided | largest relative gap | ", end="")
    print("to the nearest, median | to the median train-train distance | support, mean / most")
    for (layer, replica, kind), part in rows.groupby(["layer", "replica", "kind"], sort=False):
        print(f"{layer} | {part['num_features'].iloc[0]} | {replica} | {kind} | {summary(part)}")
    print("\nlayer | replica | another class at the projection | crossings, mean | to the nearest, mean: predicted correctly | wrongly")
    for (layer, replica), part in rows.groupby(["layer", "replica"], sort=False):
        print(f"{layer} | {replica} | {followed(part)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
