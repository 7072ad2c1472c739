"""Layouts of detectron2's detectors: network, feature pyramid and heads."""

import re
from collections.abc import Callable

from hybrid_mm.convert.core import Source, StateDict, register, unknown_key
from hybrid_mm.convert.detectron2_heads import NORM, heads, norm_name

_FPN = re.compile(rf'(fpn_(lateral|output)(\d))\.(?:(weight|bias)|{NORM})')


def fpn(state: StateDict) -> StateDict:
    """Convert a feature pyramid to the keys of MMDetection's ``FPN``.

    Raises:
        ValueError: A key is not one of a feature pyramid.
    """
    out = {}
    for key, value in state.items():
        match = _FPN.fullmatch(key)
        if match is None:
            raise unknown_key('detectron2', key, value)
        layer, kind, level, leaf, statistic = match.groups()
        convs = 'lateral_convs' if kind == 'lateral' else 'fpn_convs'
        part = f'conv.{leaf}' if leaf else f'{norm_name(state, layer)}.{statistic}'
        out[f'{convs}.{int(level) - 2}.{part}'] = value  # the first is at stride 4
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

    Heads as :func:`hybrid_mm.convert.detectron2_heads.heads` converts them.

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
            | heads(rest)
        )

    register(name, Source(description, lambda keys: matches(inside(keys)), whole, whole=True))
