"""A model of your own: a function of the image shape and the number of classes that builds a classifier.

    python -m sweep.run --config quick --set "model={name: 'examples.model:wide'}"

Activations must be modules (nn.ReLU, ...), in the places where they are to be swapped. Weights come from torch's global generator.
"""

from torch import nn


def wide(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """One convolution with large windows, and a linear head."""
    channels, _, _ = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 12, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, num_classes),
    )
