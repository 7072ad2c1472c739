"""Layouts of detectron2's detectors, whose backbone and neck are converted."""

import re
from collections.abc import Callable

from hybrid_mm.convert.core import Source, StateDict, register, unknown_key

_FPN = [
    (r'fpn_lateral(\d)\.(weight|bias)', r'lateral_convs.\1.conv.\2'),
    (r'fpn_lateral(\d)\.norm\.(weight|bias)', r'lateral_convs.\1.ln.\2'),
    (r'fpn_output(\d)\.(weight|bias)', r'fpn_convs.\1.conv.\2'),
    (r'fpn_output(\d)\.norm\.(weight|bias)', r'fpn_convs.\1.ln.\2'),
]


def fpn(state: StateDict) -> StateDict:
    """Convert a feature pyramid with layer norms to the keys of MMDetection's ``FPN``.

    Raises:
        ValueError: A key is not one of a feature pyramid.
    """
    out = {}
    for key, value in state.items():
        for pattern, new in _FPN:
            if match := re.fullmatch(pattern, key):
                level = f'.{int(match[1]) - 2}.'  # the first is at stride 4
                out[match.expand(new).replace(f'.{match[1]}.', level, 1)] = value
                break
        else:
            raise unknown_key('detectron2', key, value)
    return out


def register_detectron2(
    name: str,
    description: str,
    body: str,
    matches: Callable[[set[str]], bool],
    convert: Callable[[StateDict], StateDict],
    neck: Callable[[StateDict], StateDict] = fpn,
) -> None:
    """Register the layout of a detector, whose ``backbone.`` holds network and feature pyramid.

    The heads keep their names.

    Args:
        name: Name of the source.
        description: Description of the source.
        body: Prefix of the network within ``backbone.``, with the final dot.
        matches: Whether keys have the layout of the network.
        convert: Converts the network.
        neck: Converts the rest of ``backbone.``.
    """
    body = f'backbone.{body}'

    def inside(keys: set[str]) -> set[str]:
        return {key[len(body) :] for key in keys if key.startswith(body)}

    def whole(state: StateDict) -> StateDict:
        inner = {k[len(body) :]: v for k, v in state.items() if k.startswith(body)}
        other = {
            k.removeprefix('backbone.'): v
            for k, v in state.items()
            if k.startswith('backbone.') and not k.startswith(body)
        }
        rest = {k: v for k, v in state.items() if not k.startswith('backbone.')}
        return (
            {f'backbone.{k}': v for k, v in convert(inner).items()}
            | {f'neck.{k}': v for k, v in neck(other).items()}
            | rest
        )

    register(name, Source(description, lambda keys: matches(inside(keys)), whole, whole=True))
