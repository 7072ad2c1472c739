"""YAML files of the zoo, in which no key is given twice."""

from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


def read_yaml(file: Path) -> Any:
    """Read a file as ``yaml.safe_load`` does, which takes the last of equal keys without a word.

    Raises:
        yaml.YAMLError: It is no YAML, or a mapping has a key twice.
    """
    loader = _LOADER(file.read_text())
    try:
        node = loader.get_single_node()
        _check(node, set())
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _check(node: yaml.Node | None, seen: set[int]) -> None:
    """Check the mappings below a node, before those that it is merged with become part of it."""
    if node is None or id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, seen)
        return
    keys: set[str] = set()
    for key, value in node.value:
        if str(key.value) in keys:
            raise yaml.constructor.ConstructorError(
                problem=f'the key {key.value!r} is there twice', problem_mark=key.start_mark
            )
        keys.add(str(key.value))
        _check(value, seen)
