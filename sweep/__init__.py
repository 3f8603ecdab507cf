"""What to run, and running it: the only room that drives Ray.

import sweep

s = sweep.Sweep.from_recipe("cells", training__replicas=4)
s.plan()
r = s.run()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.config import ConfigError
    from sweep.interactive import Sweep

__all__ = ["ConfigError", "Sweep"]

_HOMES = {"ConfigError": "sweep.config", "Sweep": "sweep.interactive"}  # loaded when first asked for, so that an import costs nothing


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sweep' has no attribute {name!r}; there are {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
