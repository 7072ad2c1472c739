"""Layout of the published EA-AA-ResNet, TensorFlow variables numbered in the order of creation."""

import re

import torch
from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, register, unknown_key

_NAME = 'tensorflow-ea-aa-resnet'
_SCOPE = re.compile(r'(?:resnet_model/)?asconv_(\d+)_(\d+)_0/(.+)')
_NUMBERED = re.compile(r'(?:resnet_model/)?(conv2d|batch_normalization)(?:_(\d+))?/(\w+)')
_NORM = dict(gamma='weight', beta='bias', moving_mean='running_mean', moving_variance='running_var')


def _weight(kernel: Tensor) -> Tensor:
    """Transpose a kernel (height, width, in, out) to (out, in, height, width)."""
    return kernel.permute(3, 2, 0, 1).contiguous()


def _augmented(scope: StateDict, name: str) -> StateDict:
    """Convert one augmented convolution, the variables of a scope."""
    scope = dict(scope)
    # a fourth kernel exists only if attention evolves
    evolves = 'conv2d_3/kernel' in scope
    parts = dict(conv_out='conv2d', qkv_conv='conv2d_1', attn_out='conv2d_3' if evolves else None)
    parts |= dict(evolve='conv2d_2') if evolves else dict(attn_out='conv2d_2')
    out = {}
    for ours, theirs in parts.items():
        if f'{theirs}/kernel' not in scope:
            raise ValueError(f'{_NAME}: {name}{theirs}/kernel is missing')
        out[f'{ours}.weight'] = _weight(scope.pop(f'{theirs}/kernel'))
        if f'{theirs}/bias' in scope:
            out[f'{ours}.bias'] = scope.pop(f'{theirs}/bias')
    values = len(out['attn_out.weight'])
    keys = (len(out['qkv_conv.weight']) - values) // 2
    for key in ('qkv_conv.weight', 'qkv_conv.bias'):
        if key in out:
            k, q, v = out[key].split([keys, keys, values])
            out[key] = torch.cat([q, k, v])
    for axis, theirs in (('h', 'r_height'), ('w', 'r_width')):
        if theirs in scope:
            out[f'relative.rel_{axis}'] = scope.pop(theirs)[None]
    if scope:
        raise ValueError(f'{_NAME}: do not know the key {name + next(iter(scope))!r}')
    return out


def _trunk(convs: list[Tensor]) -> tuple[list[str], list[str]]:
    """Infer our names of the numbered convolutions and norms from the shapes of the kernels."""
    names, norms = ['stem.conv'], ['stem.norm']
    stage, block, i = -1, 0, 1

    def channels(j: int) -> int:
        return convs[j].shape[2] if j < len(convs) else 0

    while i < len(convs):
        # a shortcut's projection and the next 1x1 convolution read the same map
        first = channels(i) == channels(i + 1)
        stage, block = (stage + 1, 0) if first else (stage, block + 1)
        ours = f'stages.{stage}.blocks.{block}.'
        plain = i + first + 1 < len(convs) and len(convs[i + first + 1]) == 3
        parts = ['shortcut.conv'] * first + ['conv1'] + ['conv2'] * plain + ['conv3']
        names += [ours + part for part in parts]
        norms += [ours + p for p in ['shortcut.norm'] * first + ['norm1', 'norm2', 'norm3']]
        i += len(parts)
    return names, norms


def _convert(state: StateDict) -> StateDict:
    scopes: dict[tuple[int, int], StateDict] = {}
    numbered: dict[tuple[str, int, str], str] = {}
    out: StateDict = {}
    for key, value in state.items():
        if match := _SCOPE.fullmatch(key):
            scopes.setdefault((int(match[1]), int(match[2])), {})[match[3]] = value
        elif match := _NUMBERED.fullmatch(key):
            numbered[match[1], int(match[2] or 0), match[3]] = key
        elif match := re.fullmatch(r'(?:resnet_model/)?dense/(kernel|bias)', key):
            kernel = match[1] == 'kernel'
            out[f'head.{"weight" if kernel else "bias"}'] = value.t() if kernel else value
        else:
            raise unknown_key(_NAME, key, value)
    for (stage, block), scope in scopes.items():
        part = _augmented(scope, f'asconv_{stage}_{block}_0/')
        out |= {f'stages.{stage}.blocks.{block}.conv2.{k}': v for k, v in part.items()}
    count = 1 + max((i for layer, i, _ in numbered if layer == 'conv2d'), default=-1)
    missing = [i for i in range(count) if ('conv2d', i, 'kernel') not in numbered]
    if missing:
        raise ValueError(f'{_NAME}: the kernel of convolution number {missing[0]} is missing')
    convs = [state[numbered['conv2d', i, 'kernel']] for i in range(count)]
    names, norms = _trunk(convs) if convs else ([], [])
    for (layer, i, leaf), key in numbered.items():
        conv = layer == 'conv2d'
        known = ('kernel',) if conv else tuple(_NORM)
        if leaf not in known or i >= len(names if conv else norms):
            raise unknown_key(_NAME, key, state[key])
        if conv:
            out[f'{names[i]}.weight'] = _weight(state[key])
        else:
            out[f'{norms[i]}.{_NORM[leaf]}'] = state[key]
    return out


register(
    _NAME,
    Source(
        'EA-AA-ResNet of the authors (TensorFlow variables)',
        lambda keys: any(_SCOPE.fullmatch(key) for key in keys),
        _convert,
    ),
)
