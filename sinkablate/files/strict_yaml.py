"""YAML that refuses repeated keys; ordinary parsers silently keep the last of them."""

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Raises:
        yaml.YAMLError: The text is not YAML, or a mapping repeats a key.
    """
    refuse_repeated_keys(text)
    return yaml.load(text, LOADER)


def mapping_of(path: Path) -> dict[Any, Any]:
    """Return the top-level keys of a YAML file; empty if it has none or is damaged, which the parser reports later."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (yaml.YAMLError, OSError, ValueError, RecursionError, TypeError):
        return {}
    return content if isinstance(content, dict) else {}


def refuse_repeated_keys(text: str) -> None:
    """Check that no mapping of a YAML text repeats a key.

    Raises:
        yaml.YAMLError: The text is not YAML, or a mapping repeats a key.
    """
    visited: set[int] = set()  # an alias refers to a node that was already visited
    pending: list[yaml.Node | None] = [yaml.compose(text, LOADER)]
    while pending:
        node = pending.pop()
        if node is None or id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated(node)
            pending += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


def _refuse_repeated(mapping: yaml.MappingNode) -> None:
    keys: set[tuple[str, str]] = set()
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if (key.tag, key.value) in keys:
            raise ConstructorError(None, None, f"the key {key.value} is repeated", key.start_mark)
        keys.add((key.tag, key.value))
