"""The limit in `sweep_vs_plain_tune.py`: the unique training steps of a plan in bare PyTorch loops, one per core. No Ray, no records.

Each loop trains one network at a time the way that is fastest for one: data in memory, `channels_last`, a fused optimizer, one thread.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from multiprocessing.synchronize import Barrier

import torch

from analysis.storage import Store
from sweep.config import load
from sweep.plan import make_plan
from trainables.activations import ACTIVATIONS, swap_activation
from trainables.data import load as load_data
from trainables.losses import LOSSES
from trainables.models import build


def _train(config: str, share: int, num_shares: int, ready: Barrier, finished: Barrier) -> None:
    torch.set_num_threads(1)
    sweep, _ = load(config)
    data, training = load_data(sweep.data), sweep.training
    images = data.train.images.to(memory_format=torch.channels_last)
    labels = data.train.labels
    with tempfile.TemporaryDirectory() as empty:
        planned = list(make_plan(sweep, data, Store(empty)).remaining.values())
    networks = [(p, replica) for p in planned for replica in range(training.replicas)][share::num_shares]
    ready.wait()
    for family, replica in networks:
        torch.manual_seed(replica)
        model = build(sweep.model, data.image_shape, data.num_classes).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), training.learning_rate, training.momentum, fused=True)
        for epoch in range(family.start_epoch, training.epochs):
            phase = family.schedule.phase_before(epoch + 1)
            swap_activation(model, ACTIVATIONS.resolve(phase.activation))
            loss = LOSSES.resolve(phase.loss)
            for batch in torch.randperm(len(labels)).split(training.batch_size):
                if len(batch) == training.batch_size:
                    optimizer.zero_grad()
                    loss(model(images[batch]), labels[batch]).backward()
                    optimizer.step()
    finished.wait()


def limit_s(config: str, num_cores: int) -> float:
    """Seconds from the first step to the last."""
    context = multiprocessing.get_context("spawn")
    ready, finished = context.Barrier(num_cores + 1), context.Barrier(num_cores + 1)
    loops = [context.Process(target=_train, args=(config, i, num_cores, ready, finished)) for i in range(num_cores)]
    for loop in loops:
        loop.start()
    ready.wait()
    began = time.perf_counter()
    finished.wait()
    seconds = time.perf_counter() - began
    for loop in loops:
        loop.join()
    return seconds
