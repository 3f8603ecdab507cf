"""A user's mistakes, one line each: file, key, value, what is allowed, the nearest valid name. Imports no torch."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel

from analysis.wording import near
from trainables.recipe import CellsData, FolderData, FunctionData, NpzData, TorchvisionData
from trainables.section import Section

SOURCES: dict[str, type[Section]] = {
    "cells": CellsData,
    "npz": NpzData,
    "torchvision": TorchvisionData,
    "folder": FolderData,
    "function": FunctionData,
}


class ConfigError(ValueError):
    """The user's mistakes, one line each: file, key, value, what is allowed, the nearest valid name."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))


def _section(root: type[BaseModel], path: list[str | int]) -> type[BaseModel] | None:
    """The model that holds a key."""
    found: Any = root
    for index, part in enumerate(path):
        if part == "data" and index == 0:
            found = SOURCES.get(str(path[1])) if len(path) > 1 else None
        elif found is not None and index and path[0] == "data":
            continue
        else:
            field = getattr(found, "model_fields", {}).get(part)
            kinds = (field.annotation, *get_args(field.annotation)) if field is not None else ()  # a section, or one or null
            found = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _is_tag(loc: list[str | int], index: int) -> bool:
    """Whether a part of pydantic's path is no key of the file, but says which kind of section stands there."""
    return (index == 1 and loc[0] == "data" and loc[1] in SOURCES) or (index == 3 and loc[:2] == ["space", "recipe"])


def explain(error: dict[str, Any], root: type[BaseModel]) -> str:
    """One of pydantic's errors about a file of the model `root` as a line."""
    loc = list(error["loc"])
    section = _section(root, loc[:-1])
    shown = [part for index, part in enumerate(loc) if not _is_tag(loc, index)]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in shown).lstrip(".")
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind in ("int_type", "string_type") and shown[-1:] in (["int"], ["str"]):  # a member of a union
        key = key.rpartition(".")[0]
    if kind == "extra_forbidden" and section is not None:
        allowed = list(section.model_fields)
        return f"{key}: unknown key; {near(str(loc[-1]), allowed)}allowed: {', '.join(allowed)}"
    if kind == "missing":
        return f"{key}: missing"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        given = value.get("source") if isinstance(value, dict) else value
        what = "missing" if kind == "union_tag_not_found" else f"{given!r} is unknown"
        return f"data.source: {what}; {near(str(given), list(SOURCES))}allowed: {', '.join(SOURCES)}"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"{key}: {value!r} is unknown; {near(str(value), allowed)}allowed: {', '.join(allowed)}"
    if kind == "value_error":
        return f"{key}: {context['error']}" if key else str(context["error"])
    field = section.model_fields.get(str(loc[-1])) if section is not None else None
    about = f". {field.description}" if field is not None and field.description else ""
    return f"{key}: {value!r} is refused: {error['msg'][0].lower()}{error['msg'][1:]}{about}"
