"""Every option of every module does something, and 'reference' runs without our own operators."""

import inspect

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.layers import (
    ELSA,
    LKA,
    LSKA,
    AAConv2d,
    AttentionStem,
    BottleneckAttention,
    DecomposedLKA,
    DepthwiseConv2d,
    DilatedDepthwiseConv2d,
    DropPath,
    EvolvingAAConv2d,
    GlobalLocalFilter,
    HaloAttention,
    LayerNorm2d,
    LKATrivial,
    LocalSelfAttention2d,
    LSKATrivial,
    PairwiseAttention2d,
    PatchwiseAttention2d,
    PoolingAttention,
    QuadraticAttention2d,
    RecursiveGatedConv,
    RelativePosition2d,
    SelfAttention,
    SqueezeExcite,
)
from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention
from hybrid_mm.layers.attention.convolutional_projection import ConvolutionalProjectionAttention
from hybrid_mm.layers.attention.global_relative_attention import GlobalRelativeAttention
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.attention.spatial_reduction_attention import (
    ACmixSpatialReductionAttention,
    SpatialReductionAttention,
)
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.convolution.deform_conv import DeformConv2d
from hybrid_mm.layers.convolution.mbconv import Conv3x3, MBConv
from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d
from hybrid_mm.layers.folded_norm import Conv2dNorm, LinearNorm
from hybrid_mm.layers.relative_position import DecomposedPosition2d

MAP, GRID, TOKENS = 'maps', 'maps, channels last', 'tokens'
HEADS, NONE = 'maps of several heads', 'no forward pass'
SIZE = 8, 12
VECTOR = dict(
    rel_channels=3,
    out_channels=4,
    share=4,
    kernel_size=5,
    stride=2,
    dilation=2,
    mix=True,
    norm=lambda n: nn.BatchNorm2d(n, eps=0.3),
)
WINDOWS = dict(window=2, heads=4, qkv_bias=False, qk_scale=0.2, attn_drop=0.4, proj_drop=0.4)
PARTITION = dict(head_width=2, channels=12, hidden_channels=4, relative='log')
# module: (form of the input, arguments, another value of each argument but the first and `impl`)
OPTIONS = {
    AAConv2d: (
        MAP, dict(in_channels=8, out_channels=12, key_channels=8, value_channels=4, heads=2,
                  size=(6, 9)),
        dict(out_channels=14, kernel_size=5, key_channels=4, value_channels=6, heads=4,
             size=None, stride=2, dilation=2, bias=False, attn_downsample=True)),
    ACmix2d: (
        MAP, dict(in_channels=8, out_channels=8),
        dict(out_channels=4, kernel_att=3, heads=2, kernel_conv=5, stride=2, dilation=2)),
    ACmixWindowAttention: (GRID, dict(dim=8, window=4, heads=2), WINDOWS),
    ACmixSpatialReductionAttention: (
        TOKENS, dict(dim=8, heads=2), dict(heads=4, reduction=2, qkv_bias=False)),
    AttentionStem: (
        MAP, dict(in_channels=8, out_channels=8),
        dict(out_channels=16, block=2, heads=2, mixtures=3)),
    BottleneckAttention: (
        MAP, dict(in_channels=8, size=(6, 9)),
        dict(size=(5, 9), out_channels=12, stride=2, heads=2, dim_head=3, qk_ratio=2.0,
             qkv_bias=True, scale_pos_embed=False, position='absolute', content=False)),
    Conv2dNorm: (
        MAP, dict(in_channels=8, out_channels=8),
        dict(out_channels=4, kernel_size=5, stride=2, groups=2)),
    Conv3x3: (
        MAP, dict(in_channels=8, channels=8, stride=2),
        dict(channels=4, stride=1, padding='symmetric', groups=2, bias=False)),
    ConvolutionalProjectionAttention: (
        TOKENS, dict(dim=8, heads=2),
        dict(heads=4, method='avg', kernel_size=5, kv_stride=1, qkv_bias=False)),
    DecomposedPosition2d: (
        NONE, dict(queries=(4, 6), keys=(4, 6), dim=4),
        dict(keys=(8, 6), dim=3, std=0.1)),
    DeformConv2d: (MAP, dict(channels=8), dict(groups=2, stride=2)),
    DecomposedLKA: (MAP, dict(channels=8), dict(kernel_size=7, width=3)),
    DilatedDepthwiseConv2d: (
        MAP, dict(channels=8, kernel_size=3), dict(kernel_size=5, dilation=2, bias=False)),
    DepthwiseConv2d: (MAP, dict(channels=8, kernel_size=5), dict(kernel_size=7, bias=False)),
    DropPath: (MAP, dict(), dict()),
    ELSA: (
        GRID, dict(dim=8, heads=2),
        dict(heads=4, kernel_size=3, dilation=2, group_width=4, groups=2, lam=2, gamma=0.3,
             qk_scale=0.2, qkv_bias=True, attn_drop=0.4, proj_drop=0.4)),
    GlobalLocalFilter: (MAP, dict(channels=8, size=(8, 7)), dict(size=(5, 7))),
    GlobalRelativeAttention: (
        GRID, dict(in_channels=8, size=(8, 12), head_width=4), dict(PARTITION, size=(5, 12))),
    HaloAttention: (
        MAP, dict(in_channels=8, out_channels=8, heads=2, block_size=4),
        dict(out_channels=12, stride=2, heads=4, dim_head=3, block_size=2, halo_size=1,
             qk_ratio=2.0, qkv_bias=True, scale_pos_embed=True, mask_padding=True)),
    LayerNorm2d: (MAP, dict(channels=8), dict(eps=0.3)),
    LESA2d: (
        MAP, dict(channels=8, size=SIZE, groups=2),
        dict(size=(5, 12), groups=1, stride=2, positions='flat', deformable=True)),
    LeViTAttention: (
        GRID, dict(in_channels=8, out_channels=8, key_dim=4, heads=2, value_ratio=2, resolution=5),
        dict(out_channels=4, key_dim=3, heads=3, value_ratio=1, resolution=6, stride=2,
             norm_weight=0.3)),
    LearnedQueryAttention2d: (
        GRID, dict(in_channels=8, channels=8, heads=2, kernel_size=3),
        dict(channels=4, heads=4, kernel_size=5, stride=2, queries=3, normalize_queries=False,
             out_channels=6, attention_scale='none')),
    LinearNorm: (GRID, dict(in_channels=8, out_channels=8), dict(out_channels=4, norm_weight=0.3)),
    LKA: (MAP, dict(channels=8, kernel_size=7), dict(kernel_size=11, dilation=1)),
    LKATrivial: (MAP, dict(channels=8), dict(kernel_size=7)),
    LSKA: (MAP, dict(channels=8, kernel_size=7), dict(kernel_size=11, dilation=1)),
    LSKATrivial: (MAP, dict(channels=8), dict(kernel_size=7)),
    LocalSelfAttention2d: (
        MAP, dict(in_channels=8, out_channels=8, heads=2),
        dict(out_channels=4, kernel_size=5, heads=4, stride=2, dilation=2, share_rel=False,
             border='mask', scale=0.3)),
    MBConv: (
        MAP, dict(in_channels=8, channels=4, stride=2),
        dict(channels=6, stride=1, expansion=2.0, expand_from='input', act='silu',
             padding='symmetric', stride_in='pool', pre_act=True, gate_ratio=0.5, gate_act='gelu',
             gate_early=True, bias=False, drop_path=0.4, pool='max2',
             norm=lambda n: nn.BatchNorm2d(n, eps=0.3))),
    MixedShift: (
        HEADS, dict(maps=4, dim=2, out_per_group=2),
        dict(dim=3, out_per_group=3, kernel_size=5, stride=2, bias=True)),
    NeighborhoodAttention2d: (
        GRID, dict(dim=8, heads=2),
        dict(heads=4, kernel_size=5, dilation=2, relative_bias=False, qkv_bias=False,
             qk_scale=0.2)),
    PairwiseAttention2d: (
        MAP, dict(in_channels=8, rel_channels=2, out_channels=8),
        dict(VECTOR, rel_channels=4, out_channels=16)),
    PatchwiseAttention2d: (
        MAP, dict(in_channels=8, rel_channels=2, out_channels=8),
        dict(VECTOR, rel_channels=4, out_channels=16)),
    PartitionAttention: (
        GRID, dict(in_channels=8, window=(4, 3), head_width=4),
        dict(PARTITION, window=(4, 6), kind='grid')),
    PeripheralConv2d: (
        MAP, dict(channels=8, kernel_size=13),
        dict(kernel_size=11, center_size=3, grid=[1] * 13, pos_embed='valid',
             pos_embed_per_channel=True, share_pos_embed=True, init_std=0.1)),
    PoolingAttention: (
        GRID, dict(in_channels=8, out_channels=8, heads=2, size=(8, 12), stride_kv=2),
        dict(out_channels=4, heads=4, size=(8, 8), stride_q=2, stride_kv=4, window=4,
             qkv_bias=False, relative=False, residual=False)),
    QuadraticAttention2d: (
        MAP, dict(in_channels=8, out_channels=4, heads=3, mode='learned'),
        dict(out_channels=5, heads=2, mode='full', stride=2, bias=False, positions=5,
             position_channels=3, attn_drop=0.4)),
    RecursiveGatedConv: (
        MAP, dict(in_channels=8, channels=8, out_channels=6, order=3),
        dict(channels=4, out_channels=None, order=2, kernel_size=5, scale=0.3,
             filter_size=(8, 7))),
    RelativePosition2d: (NONE, dict(size=(4, 6), dim=4), dict(dim=3, heads=2, std=0.1)),
    SelfAttention: (
        TOKENS, dict(dim=8, heads=2, size=(6, 9)),
        dict(heads=4, size=None, window=4, qkv_bias=False, relative='bias')),
    SpatialReductionAttention: (
        TOKENS, dict(dim=8, heads=2), dict(heads=4, reduction=2, qkv_bias=False)),
    SqueezeExcite: (
        MAP, dict(channels=64), dict(ratio=4, hidden_channels=3, act=nn.functional.silu)),
    WindowAttention: (GRID, dict(dim=8, window=4, heads=2), WINDOWS),
}  # fmt: skip
# options that need another one beside them
BESIDE = {
    (HaloAttention, 'avg_down'): (dict(stride=2), True),
    (QuadraticAttention2d, 'center_std'): (dict(mode='full'), 0.3),
    (QuadraticAttention2d, 'spread_std'): (dict(mode='full'), 0.3),
    (DropPath, 'rate'): ({}, 0.4),
    (GlobalRelativeAttention, 'relative_channels'): (dict(relative='log'), 16),
    (PartitionAttention, 'relative_channels'): (dict(relative='log'), 16),
}


def channels(kind, width=8):
    return 64 if kind is SqueezeExcite else width


def results(module, kind, form):
    """What a module gives in training, with the same chance every time."""
    if form == NONE:
        return None
    torch.manual_seed(1)
    x = torch.randn(2, *SIZE, channels(kind), dtype=torch.float64)
    if form in (MAP, HEADS):
        x = x.permute(0, 3, 1, 2).contiguous()
        arguments = (x.unflatten(1, (4, 2)) if form == HEADS else x,)
    else:
        arguments = (x.flatten(1, 2), SIZE) if form == TOKENS else (x,)
    if getattr(module, 'share_pos_embed', False):
        arguments += (torch.ones(1, 13, 13),)
    torch.manual_seed(2)
    with torch.no_grad():
        return module.train()(*arguments)


def same(kind, form, base, other) -> bool:
    """Whether two sets of arguments make the same module."""
    made = []
    for arguments in (base, other):
        torch.manual_seed(0)
        made.append(kind(**arguments).double())
    states = [module.state_dict() for module in made]
    if [(k, v.shape) for k, v in states[0].items()] != [(k, v.shape) for k, v in states[1].items()]:
        return False
    if not all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True)):
        return False
    for parameter in made[0].parameters():
        nn.init.normal_(parameter)
    made[1].load_state_dict(made[0].state_dict())
    outs = [results(module, kind, form) for module in made]
    if outs[0] is None:
        return True
    return outs[0].shape == outs[1].shape and torch.allclose(*outs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('kind', OPTIONS, ids=lambda kind: kind.__name__)
def test_every_option_has_an_effect(kind):
    form, base, others = OPTIONS[kind]
    known = inspect.signature(WindowAttention if kind is ACmixWindowAttention else kind).parameters
    beside = {name for owner, name in BESIDE if owner is kind}
    tested = {*others, *beside, 'impl', *list(known)[: 1 if kind is not DropPath else 0]}
    assert set(known) - {'impl'} == tested - {'impl'}
    assert same(kind, form, base, dict(base)), 'not reproducible'
    for name, value in others.items():
        assert not same(kind, form, base, {**base, name: value}), name
    for name in beside:
        more, value = BESIDE[kind, name]
        assert not same(kind, form, {**base, **more}, {**base, **more, name: value}), name


def test_options_of_an_evolving_convolution():
    base = dict(
        in_channels=8,
        out_channels=12,
        key_channels=8,
        value_channels=4,
        heads=2,
        size=(4, 6),
        evolves=True,
    )

    def result(**kwargs):
        torch.manual_seed(0)
        module = EvolvingAAConv2d(**{**base, **kwargs}).double()
        x = torch.randn(1, 8, 4, 6, dtype=torch.float64)
        with torch.no_grad():
            return module(x, torch.randn(1, 2, 24, 24, dtype=torch.float64))

    plain = result()
    for kwargs in (dict(alpha=0.4), dict(beta=0.2), dict(official_tables=True), dict(size=None)):
        assert not torch.allclose(plain[1], result(**kwargs)[1]), kwargs
    for kwargs in (dict(kernel_size=5), dict(dilation=2)):
        assert not torch.allclose(plain[0], result(**kwargs)[0]), kwargs


class NoOwnOperators(TorchDispatchMode):
    """Fails at an operator that only this package has."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not str(func).startswith('hybrid_mm'), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    'kind',
    [
        k
        for k in OPTIONS
        if 'impl'
        in inspect.signature(WindowAttention if k is ACmixWindowAttention else k).parameters
    ],
    ids=lambda k: k.__name__,
)
def test_reference_is_plain(kind):
    """The reference of a module is that of all its parts."""
    form, base, _ = OPTIONS[kind]
    if kind is LeViTAttention:
        module = kind(**base, impl='mask').double()
    else:
        module = kind(**base, impl='reference').double()
    assert [part.impl for part in module.modules() if hasattr(part, 'impl')]
    with NoOwnOperators():
        results(module, kind, form)
