"""`sweep completion SHELL`: verbs, options, recipes and the keys of the sweep file, completed by the shell."""

from __future__ import annotations

import argparse
from typing import get_args

from pydantic import BaseModel

from sweep.command_line import DONE, parser_of_all
from sweep.config import ConfigError, Sweep, recipe_names
from sweep.extras import missing
from sweep.mistakes import SOURCES

# Recipes and sweep files after --config, keys after --set. The shells call these with what is typed so far.
_PREAMBLE = {
    "bash": """
_sweep_configs() {{ compgen -W "{recipes}" -- "$1"; compgen -f -X '!*.yaml' -- "$1"; compgen -d -S / -- "$1"; }}
_sweep_keys() {{ compgen -W "{keys}" -- "$1"; }}
""",
    "zsh": """
_sweep_configs() {{ _alternative 'recipes:recipe:({recipes})' 'files:sweep file:_files -g "*.yaml"' }}
_sweep_keys() {{ compadd -S '' -- {keys} }}
""",
}
_FUNCTIONS = {"config": "_sweep_configs", "overrides": "_sweep_keys"}  # by the option's name in the parser


def keys(model: type[BaseModel] = Sweep, path: str = "") -> list[str]:
    """Every key of the sweep file, with its dots: `training.replicas`."""
    found = []
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        inner = [*SOURCES.values()] if path + name == "data" else sections
        found += [key for section in inner for key in keys(section, f"{path}{name}.")] or [path + name]
    return list(dict.fromkeys(found))


def script(shell: str) -> str:
    """The completion for `bash` or `zsh`. Raises ConfigError where shtab, which writes it, is not installed."""
    if why := missing("completion"):
        raise ConfigError("sweep", [why])
    import shtab

    parser = parser_of_all("sweep")
    (verbs,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # as shtab finds them
    for verb in verbs.values():
        for action in verb._actions:
            if action.dest in _FUNCTIONS:
                action.complete = dict.fromkeys(_PREAMBLE, _FUNCTIONS[action.dest])
    words = {"recipes": " ".join(recipe_names()), "keys": " ".join(f"{key}=" for key in keys())}
    return str(shtab.complete(parser, shell, preamble=_PREAMBLE[shell].format(**words)))


def completion(shell: str) -> int:
    print(script(shell))
    return DONE
