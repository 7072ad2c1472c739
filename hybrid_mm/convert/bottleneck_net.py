"""Layouts of HaloNet, BoTNet and their hybrids: timm's ByobNet, and distribuuuu's botnet50."""

import re

import torch
from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, register, rename

_BLOCK = r'stages\.(\d+)\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_LEAF = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_TIMM = [
    # a stem of one convolution has no number if no pooling follows it
    (r'stem\.conv(\d?)\.conv\.weight', r'stem.layers.\1.conv.weight'),
    (r'stem\.conv(\d?)\.bn\.' + _LEAF, r'stem.layers.\1.norm.\2'),
    (r'stem\.(conv\.weight)', r'stem.layers..\1'),
    (r'stem\.bn\.' + _LEAF, r'stem.layers..norm.\1'),
    (_BLOCK + r'conv([13])_1x1\.conv\.weight', _OURS + r'conv\3.weight'),
    (_BLOCK + r'conv([13])_1x1\.bn\.' + _LEAF, _OURS + r'norm\3.\4'),
    (_BLOCK + r'conv2_kxk\.conv\.weight', _OURS + r'conv2.weight'),
    (_BLOCK + r'conv2_kxk\.bn\.' + _LEAF, _OURS + r'norm2.\3'),
    (_BLOCK + r'attn\.(fc[12])\.' + _LEAF, _OURS + r'gate.\3.\4'),
    (_BLOCK + r'attn\.conv\.weight', _OURS + r'gate.conv.weight'),
    (_BLOCK + r'self_attn\.(q|kv|qkv)\.' + _LEAF, _OURS + r'conv2.\3.\4'),
    (_BLOCK + r'self_attn\.pos_embed\.height_rel', _OURS + r'conv2.relative.rel_h'),
    (_BLOCK + r'self_attn\.pos_embed\.width_rel', _OURS + r'conv2.relative.rel_w'),
    (_BLOCK + r'post_attn\.' + _LEAF, _OURS + r'norm2.\3'),
    (_BLOCK + r'shortcut\.conv\.weight', _OURS + r'shortcut.conv.weight'),
    (_BLOCK + r'shortcut\.bn\.' + _LEAF, _OURS + r'shortcut.norm.\3'),
    (r'final_conv\.conv\.weight', r'final.conv.weight'),
    (r'final_conv\.bn\.' + _LEAF, r'final.norm.\1'),
    (r'head\.fc\.(weight|bias)', r'head.\1'),
]


def _shared(key: str, value: Tensor) -> Tensor:
    """Add the dimension of heads, of length 1, to relative tables."""
    return value[None] if '.relative.' in key else value


def _from_timm(state: StateDict) -> StateDict:
    renamed = rename(state, _TIMM, 'timm-byobnet')
    stages = [int(m[1]) for m in map(re.compile(r'stages\.(\d+)\.').match, renamed) if m]
    out = {}
    for key, value in renamed.items():
        key = re.sub(
            r'^(stem\.layers)\.(\d?)', lambda m: f'{m[1]}.{int(m[2]) - 1 if m[2] else 0}', key
        )
        key = re.sub(r'^final\.', f'stages.{max(stages, default=0)}.final.', key)
        out[key] = _shared(key, value)
    return out


register(
    'timm-byobnet',
    Source(
        "timm's ByobNet: HaloNet, BoTNet and hybrids (also conversions of the paper's networks)",
        lambda keys: any(re.match(_BLOCK + r'conv1_1x1\.conv\.weight', key) for key in keys),
        _from_timm,
    ),
)

_CONV_STAGE = r'([456])\.(\d+)\.'
_STACK = r'7\.net\.(\d+)\.'
_OURS4 = r'stages.3.blocks.\1.'
_DISTRIBUUUU = [
    (r'0\.weight', 'stem.layers.0.conv.weight'),
    (r'1\.' + _LEAF, r'stem.layers.0.norm.\1'),
    (_CONV_STAGE + r'conv(\d)\.weight', _OURS + r'conv\3.weight'),
    (_CONV_STAGE + r'bn(\d)\.' + _LEAF, _OURS + r'norm\3.\4'),
    (_CONV_STAGE + r'downsample\.0\.weight', _OURS + r'shortcut.conv.weight'),
    (_CONV_STAGE + r'downsample\.1\.' + _LEAF, _OURS + r'shortcut.norm.\3'),
    (_STACK + r'shortcut\.0\.weight', _OURS4 + 'shortcut.conv.weight'),
    (_STACK + r'shortcut\.1\.' + _LEAF, _OURS4 + r'shortcut.norm.\2'),
    (_STACK + r'net\.0\.weight', _OURS4 + 'conv1.weight'),
    (_STACK + r'net\.1\.' + _LEAF, _OURS4 + r'norm1.\2'),
    (_STACK + r'net\.3\.(to_qk|to_v)\.weight', _OURS4 + r'conv2.\2.weight'),
    (_STACK + r'net\.3\.pos_emb\.rel_height', _OURS4 + 'conv2.relative.rel_h'),
    (_STACK + r'net\.3\.pos_emb\.rel_width', _OURS4 + 'conv2.relative.rel_w'),
    (_STACK + r'net\.3\.pos_emb\.height', _OURS4 + 'conv2.absolute.emb_h'),
    (_STACK + r'net\.3\.pos_emb\.width', _OURS4 + 'conv2.absolute.emb_w'),
    (_STACK + r'net\.5\.' + _LEAF, _OURS4 + r'norm2.\2'),
    (_STACK + r'net\.7\.weight', _OURS4 + 'conv3.weight'),
    (_STACK + r'net\.8\.' + _LEAF, _OURS4 + r'norm3.\2'),
    (r'10\.(weight|bias)', r'head.\1'),
]


def _from_distribuuuu(state: StateDict) -> StateDict:
    out: StateDict = {}
    for key, value in rename(state, _DISTRIBUUUU, 'distribuuuu-botnet').items():
        key = re.sub(r'^stages\.([456])\.', lambda m: f'stages.{int(m[1]) - 4}.', key)
        out[key] = _shared(key, value)
    for key in [key for key in out if key.endswith('.to_qk.weight')]:
        values = key.replace('.to_qk.', '.to_v.')
        if values not in out:
            raise ValueError(f'distribuuuu-botnet: {key} without {values}')
        out[key.replace('.to_qk.', '.qkv.')] = torch.cat([out.pop(key), out.pop(values)])
    return out


register(
    'distribuuuu-botnet',
    Source(
        "distribuuuu's botnet50 (use BoTNet with shortcut_act=True)",
        lambda keys: '7.net.0.net.3.to_qk.weight' in keys,
        _from_distribuuuu,
    ),
)
