"""Heads of published classifiers under the names that MMPretrain's classifiers have for them."""

import torch
from torch import Tensor

from hybrid_mm.convert.core import StateDict

# layers of a head in our layout, and in the heads of MMPretrain; the first that fits counts
_LINEAR = {'head.': 'head.fc.', 'fc.': 'head.fc.'}  # LinearClsHead
_TWO_LAYERS = {'head.pre_logits.': 'head.layers.pre_logits.', 'head.': 'head.layers.head.'}
_PLAIN = {'head.layers.head.': 'head.fc.'}  # VisionTransformerClsHead without a hidden layer
_NORMALISED = {'head.': 'head.head.'}  # LeViTClsHead
# the two heads of a distilled LeViT in MMPretrain, and in our layout
_DISTILLED = {'head.head_dist.': 'head.dist.', 'head.head.': 'head.'}
_EPS = 1e-5  # of torch's batch norm


def as_classifier(state: StateDict) -> StateDict:
    """Name the tensors of a published classifier as a classifier of MMPretrain has them.

    Args:
        state: Classifier in our layout: the backbone with or without ``backbone.``, the head as
            ``head.``, see :func:`.convert`, or, in files of torchvision, as ``fc.``. Or one of
            MMPretrain, with a ``VisionTransformerClsHead`` of one layer.

    Returns:
        The backbone as ``backbone.``; the head as that of ``LinearClsHead`` or, by its tensors, of
        ``VisionTransformerClsHead`` (a hidden layer) or ``LeViTClsHead`` (batch norm and linear
        layer). The two heads of a distilled LeViT become the one that gives their mean, which is
        what they are tested with.
    """
    if 'head.head_dist.linear.weight' in state:
        state = {_renamed(key, _DISTILLED): value for key, value in state.items()}
    rules = _LINEAR
    if 'head.pre_logits.weight' in state:
        rules = _TWO_LAYERS
    elif 'head.layers.head.weight' in state:
        hidden = 'head.layers.pre_logits.weight' in state
        rules = {} if hidden else _PLAIN
    elif 'head.linear.weight' in state:
        rules, state = _NORMALISED, _joined(state)
    named = {_renamed(key, rules): value for key, value in state.items()}
    inner = ('backbone.', 'head.')
    return {k if k.startswith(inner) else f'backbone.{k}': value for k, value in named.items()}


def _renamed(key: str, rules: dict[str, str]) -> str:
    found = next((start for start in rules if key.startswith(start)), None)
    return key if found is None else rules[found] + key.removeprefix(found)


def _joined(state: StateDict) -> StateDict:
    """A network with a distilled head beside its own, with one that gives the mean of both."""
    names = [f'bn.{name}' for name in ('weight', 'bias', 'running_mean', 'running_var')]
    names += ['linear.weight', 'linear.bias']
    heads = [
        [state[prefix + name] for name in names if prefix + name in state]
        for prefix in ('head.', 'head.dist.')
    ]
    shapes = [[tensor.shape for tensor in head] for head in heads]
    if len(heads[0]) < len(names) or shapes[0] != shapes[1]:
        return state
    weight, bias = (torch.stack(parts).mean(0) for parts in zip(*map(_folded, heads), strict=True))
    kept = {key: value for key, value in state.items() if not key.startswith('head.dist.')}
    # a norm that changes nothing
    norm = {'weight': 1.0, 'bias': 0.0, 'running_mean': 0.0, 'running_var': 1.0 - _EPS}
    kept |= {f'head.bn.{k}': torch.full_like(state['head.bn.bias'], v) for k, v in norm.items()}
    for name, value in (('weight', weight), ('bias', bias)):
        kept[f'head.linear.{name}'] = value.to(state[f'head.linear.{name}'].dtype)
    return kept


def _folded(head: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of batch norm and linear layer in one, in float64."""
    scale, shift, mean, variance, weight, bias = (tensor.double() for tensor in head)
    scale = scale / (variance + _EPS).sqrt()
    return weight * scale, bias + weight @ (shift - mean * scale)
