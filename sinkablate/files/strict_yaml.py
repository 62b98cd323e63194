"""YAML in which a key may stand once: parsers take the last of two equal keys and say nothing."""

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        yaml.YAMLError: It is not YAML, or a mapping in it has a key twice.
    """
    refuse_repeated_keys(text)
    return yaml.load(text, LOADER)


def mapping_of(path: Path) -> dict[Any, Any]:
    """The keys of a YAML file; empty where it has none, or is damaged, which the parser says where it matters."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (yaml.YAMLError, OSError, ValueError, RecursionError, TypeError):
        return {}
    return content if isinstance(content, dict) else {}


def refuse_repeated_keys(text: str) -> None:
    """See that no mapping of a YAML text has a key twice.

    Raises:
        yaml.YAMLError: It is not YAML, or a mapping in it has a key twice.
    """
    seen: set[int] = set()  # an alias leads to a node again
    pending: list[yaml.Node | None] = [yaml.compose(text, LOADER)]
    while pending:
        node = pending.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
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
