"""A swap of something else than activation and loss: here the learning rate, by a function of your own.

    python -m sweep.run --config examples/swap_learning_rate.yaml

What a phase puts in force beside its activation and loss follows as slot=name. Another slot (label noise, augmentation) is an entry of
FURTHER in trainables/schedule.py with its registry, its check in sweep/check.py, and the place in training that asks the phase for it.
"""


def frozen(learning_rate: float) -> float:
    """No steps from here on: what a swap does without any learning after it. (Running means of batch norms still move.)"""
    return 0.0 * learning_rate
