"""What the layouts of Hugging Face's transformers share."""

import re
from collections.abc import Callable

import torch

from hybrid_mm.convert.core import LEAF, Source, StateDict, register, rename

_PARTS = re.compile(r'(?P<start>.*\.)(?P<part>q|k|v)\.(?P<leaf>weight|bias)')


def joined(state: StateDict, joint: str = 'qkv') -> StateDict:
    """Join projections ``X.q``, ``X.k``, ``X.v`` of a renamed state dict.

    Args:
        state: State dict.
        joint: 'qkv', or 'kv' to leave the queries by themselves.

    Raises:
        ValueError: One of them is missing.
    """
    out: StateDict = {}
    for key, value in state.items():
        match = _PARTS.fullmatch(key)
        if match is None or match['part'] not in joint:
            out[key] = value
        elif match['part'] == joint[0]:
            names = [f'{match["start"]}{part}.{match["leaf"]}' for part in joint]
            missing = [name for name in names if name not in state]
            if missing:
                raise ValueError(f'{key} is there, but not {missing[0]}')
            out[f'{match["start"]}{joint}.{match["leaf"]}'] = torch.cat([state[n] for n in names])
    return out


def register_huggingface(
    name: str,
    description: str,
    base: str,
    rules: list[tuple[str, str]],
    mark: str,
    finish: Callable[[StateDict], StateDict],
    unused: str | None = None,
) -> None:
    """Register a layout of transformers.

    A model for a task has its network under a name of its own, a plain one without: both are
    taken, also within a wrapper's ``model.``. The classifier becomes ``head.``.

    Args:
        name: Name of the source.
        description: Description of the source.
        base: Pattern of the names of the network within models for a task.
        rules: Patterns of keys, without prefix, and replacements, see :func:`.core.rename`.
        mark: Pattern of a key that identifies such files.
        finish: Converts the renamed state dict to ours.
        unused: Pattern of keys that are left out: nothing is computed with them, or only what a
            pre-training needs.
    """
    prefix = rf'(?:model\.)?(?:(?:{base})\.)?'
    marked, left_out = re.compile(prefix + mark), re.compile(rf'{prefix}(?:{unused or "$"})')
    rules = [*rules, (rf'classifier{LEAF}', r'head.\1')]
    prefixed = [(prefix + pattern, replacement) for pattern, replacement in rules]

    def convert(state: StateDict) -> StateDict:
        kept = {key: value for key, value in state.items() if not left_out.fullmatch(key)}
        return finish(rename(kept, prefixed, name))

    def matches(keys: set[str]) -> bool:
        return any(map(marked.fullmatch, keys))

    register(name, Source(description, matches, convert))
