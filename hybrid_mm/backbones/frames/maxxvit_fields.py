"""Variants of MaxViT and CoAtNet from a dict with the fields of timm's ``MaxxVitCfg``.

Facts of timm 1.0.31, ``timm/models/maxxvit.py``: names, defaults and meaning of the fields.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hybrid_mm.errors import nearest
from hybrid_mm.layers.convolution.mbconv import ACTIVATIONS

_NETWORK = dict(
    embed_dim=(96, 192, 384, 768),
    depths=(2, 3, 5, 2),
    block_type=('C', 'C', 'T', 'T'),
    stem_width=64,
    stem_bias=False,
    conv_cfg=None,
    transformer_cfg=None,
    head_hidden_size=None,
    weight_init='vit_eff',
)
_CONV = dict(
    block_type='mbconv',
    expand_ratio=4.0,
    expand_output=True,
    kernel_size=3,
    group_size=1,
    pre_norm_act=False,
    output_bias=True,
    stride_mode='dw',
    pool_type='avg2',
    downsample_pool_type='avg2',
    padding='',
    attn_early=False,
    attn_layer='se',
    attn_act_layer='silu',
    attn_ratio=0.25,
    init_values=1e-6,
    act_layer='gelu',
    norm_layer='',
    norm_layer_cl='',
    norm_eps=None,
)
_TRANSFORMER = dict(
    dim_head=32,
    head_first=True,
    expand_ratio=4.0,
    expand_first=True,
    shortcut_bias=True,
    attn_bias=True,
    attn_drop=0.0,
    proj_drop=0.0,
    pool_type='avg2',
    rel_pos_type='bias',
    rel_pos_dim=512,
    partition_ratio=32,
    window_size=None,
    grid_size=None,
    no_block_attn=False,
    use_nchw_attn=False,
    init_values=None,
    act_layer='gelu',
    norm_layer='layernorm2d',
    norm_layer_cl='layernorm',
    norm_eps=1e-6,
)
# values of fields that have no other one here; those of weights alone, of heads and of initial
# values (head_hidden_size, weight_init, use_nchw_attn) may be any
_ONLY: dict[str, tuple] = {
    'conv_cfg.block_type': ('mbconv',),
    'conv_cfg.kernel_size': (3,),
    'conv_cfg.group_size': (1,),
    'conv_cfg.attn_layer': ('se',),
    'conv_cfg.norm_layer': ('', 'batchnorm2d'),
    'transformer_cfg.expand_ratio': (4,),
    'transformer_cfg.attn_bias': (True,),
    'transformer_cfg.attn_drop': (0,),
    'transformer_cfg.proj_drop': (0,),
    'transformer_cfg.partition_ratio': (32,),
    'transformer_cfg.no_block_attn': (False,),
    'transformer_cfg.norm_layer': ('layernorm2d',),
    'transformer_cfg.norm_layer_cl': ('layernorm',),
}
_PADDING = {'': 'symmetric', 'same': 'same'}
_STRIDE = {'dw': 'conv', '1x1': 'expansion', 'pool': 'pool'}
_POOL = {'avg': 'avg3', 'avg2': 'avg2', 'max': 'max3', 'max2': 'max2'}
_RELATIVE = {'bias': 'table', 'bias_tf': 'table', 'mlp': 'log'}
_APPROXIMATE = {'gelu': 'none', 'gelu_tanh': 'tanh'}


def is_fields(arch: Any) -> bool:
    """Whether a variant is told by timm's fields: a dict or dataclass with some that ours lack."""
    names = set(arch) if isinstance(arch, Mapping) else set(_dict(arch))
    return bool(names & (set(_NETWORK) - {'depths'}))


def variant(arch: Any, owner: str) -> dict[str, Any]:
    """Fields of :class:`~hybrid_mm.backbones.MaxViT` or CoAtNet by timm's.

    Args:
        arch: Dict with the fields of ``MaxxVitCfg``, or that class; its ``conv_cfg`` and
            ``transformer_cfg`` likewise. What is missing has timm's default.
        owner: 'MaxViT' or 'CoAtNet'.

    Raises:
        ValueError: Names a field that there is not, or a value without a counterpart here.
    """
    whole = _filled(arch, _NETWORK, owner, '')
    conv = _filled(whole['conv_cfg'], _CONV, owner, 'conv_cfg.')
    attention = _filled(whole['transformer_cfg'], _TRANSFORMER, owner, 'transformer_cfg.')

    def one(field: str, known: Mapping | tuple) -> Any:
        group, _, name = field.rpartition('.')
        value = dict(conv_cfg=conv, transformer_cfg=attention).get(group, whole)[name]
        if value not in known:
            raise _unknown(owner, field, value, known)
        return known[value] if isinstance(known, Mapping) else value

    for field, known in _ONLY.items():
        one(field, known)
    if conv['stride_mode'] == 'pool':
        one('conv_cfg.downsample_pool_type', ('avg2',))
    if conv['padding'] == 'same':  # pools of 3 x 3 pixels are padded as the convolutions are
        one('conv_cfg.pool_type', ('avg2', 'max2'))
    relative = one('transformer_cfg.rel_pos_type', _RELATIVE)
    # the order of rows in files, which the converter knows by the table
    first = attention['rel_pos_type'] != 'bias_tf'
    one('transformer_cfg.head_first', (first,))
    stem = whole['stem_width']
    found = dict(
        depths=whole['depths'],
        channels=whole['embed_dim'],
        stem=dict(
            channels=(stem, stem) if isinstance(stem, int) else tuple(stem),
            bias=whole['stem_bias'],
        ),
        conv=dict(
            expansion=conv['expand_ratio'],
            expand_from='output' if conv['expand_output'] else 'input',
            act=one('conv_cfg.act_layer', tuple(ACTIVATIONS)),
            padding=one('conv_cfg.padding', _PADDING),
            stride_in=one('conv_cfg.stride_mode', _STRIDE),
            pool=one('conv_cfg.pool_type', _POOL),
            pre_act=conv['pre_norm_act'],
            gate_ratio=conv['attn_ratio'],
            gate_act=one('conv_cfg.attn_act_layer', tuple(ACTIVATIONS)),
            gate_early=conv['attn_early'],
            bias=conv['output_bias'],
        ),
        norm=dict(eps=conv['norm_eps'] or 1e-5, momentum=0.1),
        ln_eps=attention['norm_eps'],
        head_width=attention['dim_head'],
        attention=dict(
            relative=relative,
            relative_channels=attention['rel_pos_dim'],
            layer_scale=attention['init_values'] or None,
        ),
    )
    blocks = tuple(whole['block_type'])
    approximate = one('transformer_cfg.act_layer', _APPROXIMATE)
    if owner == 'MaxViT':
        if set(blocks) != {'M'}:
            raise _unknown(owner, 'block_type', blocks, ('M',))
        for name in ('window_size', 'grid_size'):
            side = attention[name]
            found[name] = (side, side) if isinstance(side, int) else side
        return found | dict(approximate=approximate)
    for block in blocks:
        if block not in ('C', 'T'):
            raise _unknown(owner, 'block_type', block, ('C', 'T'))
    for name in ('window_size', 'grid_size'):
        one(f'transformer_cfg.{name}', (None,))
    found['attention'] |= dict(
        approximate=approximate,
        expand_first=attention['expand_first'],
        shortcut_bias=attention['shortcut_bias'],
        pool=one('transformer_cfg.pool_type', _POOL),
    )
    return found | dict(kinds=blocks)


def _dict(fields: Any) -> dict[str, Any]:
    """Fields of a dict or a dataclass; of anything else none."""
    if isinstance(fields, Mapping):
        return dict(fields)
    if dataclasses.is_dataclass(fields) and not isinstance(fields, type):
        return {f.name: getattr(fields, f.name) for f in dataclasses.fields(fields)}
    return {}


def _filled(fields: Any, defaults: dict, owner: str, group: str) -> dict[str, Any]:
    """Fields with timm's defaults where they are missing."""
    given = _dict(fields)
    if fields is not None and not given and fields != {}:
        raise ValueError(
            f'arch.{group.rstrip(".")} of {owner} must be a dict of fields of timm, got {fields!r}'
        )
    for name in given:
        if name not in defaults:
            raise ValueError(
                f'arch of {owner}: timm has no field {group}{name}{nearest(name, defaults)}'
            )
    return defaults | given


def _unknown(owner: str, field: str, value: Any, known: Mapping | tuple) -> ValueError:
    return ValueError(
        f"arch of {owner}: timm's {field}={value!r} has no counterpart here; known are "
        f'{", ".join(map(repr, known))}'
    )
