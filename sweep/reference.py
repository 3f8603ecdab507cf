"""What the sweep file and `--json` may hold, as Markdown: every key with its type, default and meaning, from the models themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from sweep.config import Sweep
from sweep.records import RECORDS

_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null", "object": "mapping"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def configuration_markdown() -> str:
    """The page on the sweep file: a section per part of it."""
    lines = [
        "# The sweep file",
        "",
        "Generated from the models that read it. A sweep file is YAML; every key but `name` has a default, and unknown keys are refused.",
        "`--set KEY=VALUE` overrides a key by its dotted name, `--set training.replicas=4`. [`sweep.schema.json`](sweep.schema.json) is",
        "the same as a JSON schema, for editors that complete and check YAML.",
        "",
    ]
    return "\n".join([*lines, *_sections(Sweep.model_json_schema(), "Top level")])


def records_markdown() -> str:
    """The page on what `--json` prints."""
    lines = [
        "# Output for programs",
        "",
        "Generated from the models that write it. `--json` prints one JSON object, unrounded. Keys may be added; none is renamed or taken",
        "away. What goes wrong is told on standard error, with the [exit code](command_line.md#how-a-command-ends).",
        "",
    ]
    for record in RECORDS:
        lines += _sections(record.model_json_schema(mode="serialization"), str(record.__doc__), has_defaults=False)
    return "\n".join(lines)


def json_schema() -> str:
    """The sweep file as a JSON schema."""
    return json.dumps(Sweep.model_json_schema(), indent=1)


def undescribed(model: type[BaseModel]) -> list[str]:
    """Keys of a model, and of all that it holds, that say nothing of what they mean."""
    schema = model.model_json_schema()
    parts = {model.__name__: schema, **schema.get("$defs", {})}
    keys = [(f"{name}.{key}", field) for name, part in parts.items() for key, field in part.get("properties", {}).items()]
    return [name for name, field in keys if not _meaning(field, schema)]


def _sections(schema: dict[str, Any], title: str, has_defaults: bool = True) -> Iterator[str]:
    """A heading and a table for the schema and, below, for each section that its keys hold, once."""
    waiting, seen = [(title, schema)], set[str]()
    while waiting:
        title, part = waiting.pop(0)
        path = "" if title == "Top level" or not has_defaults else f"{title.strip('`').partition('`')[0]}."
        yield from (f"## {title}", "")
        if (about := part.get("description", "")) != title:
            yield from (_cell(about), "")
        yield f"| key | type |{' default |' if has_defaults else ''} meaning |"
        yield f"|---|---|{'---|' if has_defaults else ''}---|"
        below = []
        for key, field in part["properties"].items():
            default = f" {_default(field, key in part.get('required', []))} |" if has_defaults else ""
            yield f"| `{key}` | {_cell(_type(field, schema))} |{default} {_cell(_meaning(field, schema))} |"
            for name in _held(field):
                if name not in seen:
                    seen.add(name)
                    held = schema["$defs"][name]
                    below.append((_title(f"{path}{key}", name, held, field, has_defaults), held))
        yield ""
        waiting = below + waiting


def _title(path: str, name: str, held: dict[str, Any], field: dict[str, Any], has_defaults: bool) -> str:
    """`search.pruning`, or which of several sections stands there."""
    if not has_defaults:
        return name
    source = held["properties"].get("source", {}).get("const")
    return f"`{path}` with `source: {source}`" if source else f"`{path}`" if len(_held(field)) == 1 else f"`{path}`: {name}"


def _held(field: Any) -> list[str]:
    """The names of the sections that a key may hold."""
    if isinstance(field, dict):
        own = [field["$ref"].rpartition("/")[2]] if "$ref" in field else []
        return list(dict.fromkeys(own + [name for key, value in field.items() if key != "default" for name in _held(value)]))
    return [name for value in field for name in _held(value)] if isinstance(field, list) else []


def _meaning(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """A key's description; that of the section that it holds where both are the same."""
    section = schema.get("$defs", {}).get(field.get("$ref", "").rpartition("/")[2], {})
    return str(field.get("description") or section.get("description", ""))


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in field:
        return "section"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(option, schema) for option in options))
    if field.get("type") == "array":
        inner = field.get("items", {})
        return f"list of {_type(inner, schema)}" if inner else "list"
    if field.get("type") == "object" and isinstance(values := field.get("additionalProperties"), dict) and values:
        return f"mapping of text to {_type(values, schema)}"
    kind = _KINDS.get(field.get("type", ""), "anything")
    return " ".join([kind, *(f"{sign} {field[bound]}" for bound, sign in _BOUNDS.items() if bound in field)])


def _default(field: dict[str, Any], is_required: bool) -> str:
    if is_required:
        return "required"
    if "default" not in field or isinstance(field["default"], dict):
        return "" if _held(field) else "`{}`"
    return f"`{json.dumps(field['default'], ensure_ascii=False)}`"


def _cell(text: str) -> str:
    """Text for a cell of a table, or for a paragraph."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
