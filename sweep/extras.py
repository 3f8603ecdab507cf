"""What needs a package that is not always installed, and the command that installs it."""

from __future__ import annotations

import importlib.util

# By what needs it: the package that is imported, which the extra of that name installs.
PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb", "completion": "shtab"}


def missing(name: str) -> str | None:
    """Why something cannot be had, with what to type; None where it can."""
    package = PACKAGES[name]
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{name} needs the package {package}, which is not installed: pip install 'karenina-sweep[{name}]'"
