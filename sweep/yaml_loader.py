"""How a sweep file is read: YAML, as people mean it."""

from __future__ import annotations

import re
from typing import Any

import yaml

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)  # what reading a text may raise: the last one, of brackets within brackets


class SweepLoader(yaml.SafeLoader):
    """YAML as people mean it: 1e-3 is a number, 1:30 and 2026-01-01 are text, and a key stands once."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = [key for index, key in enumerate(keys) if key in keys[:index]]
        if repeated:
            raise yaml.composer.ComposerError(None, None, f"the key {repeated[0]!r} stands twice", node.start_mark)
        return node


_NUMBERS = {"int": r"[-+]?(0|[1-9][0-9]*)", "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"}
_DROPPED = {"tag:yaml.org,2002:" + tag for tag in ("int", "float", "timestamp")}
SweepLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    SweepLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^({_pattern})$"), list("-+.0123456789"))
