"""A YAML loader for text of strangers: plain values, no aliases, no key twice.

Imported when the first front matter is read; brings `yaml` with it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import yaml


class GuardedLoader(yaml.SafeLoader):
    """`SafeLoader` makes no objects of other people's classes. This one also refuses what only blows up or misleads."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # pyright: ignore[reportUnknownMemberType]  (untyped in the stubs)
            mark = cast("Any", self).peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not read; write it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key must be text", node.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {key.value!a} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
