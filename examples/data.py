"""A data set of your own: a function that gives arrays, by the names of a .npz file.

    python -m sweep.run --config quick --set "data={source: function, name: 'examples.data:stripes', options: {num_images: 400}}"

The same options must give the same arrays: every worker calls it. `groups` [sample] would name what must stay in one split.
"""

import numpy as np


def stripes(num_images: int = 300, size: int = 12, noise: float = 60.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Gray images of noisy stripes: lying (0) or standing (1)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=num_images)
    phase = generator.uniform(0, 2 * np.pi, (num_images, 1, 1))
    down, across = np.mgrid[:size, :size]
    where = np.where(labels[:, None, None] == 1, across, down)  # [sample, height, width]
    images = 128 + 60 * np.sin(where * np.pi / 3 + phase) + noise * generator.standard_normal((num_images, size, size))
    return {"images": images.clip(0, 255).astype(np.uint8), "labels": labels, "class_names": np.array(["lying", "standing"])}
