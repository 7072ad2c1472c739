"""Initial values of every layer against the published ones, and the numbers of their norms."""

import math

import pytest
import torch
from torch import nn

from hybrid_mm.layers import (
    ELSA,
    AAConv2d,
    AttentionStem,
    BottleneckAttention,
    GlobalLocalFilter,
    HaloAttention,
    LayerNorm2d,
    LocalSelfAttention2d,
    PairwiseAttention2d,
    PatchwiseAttention2d,
    PoolingAttention,
    QuadraticAttention2d,
)
from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention
from hybrid_mm.layers.attention.bottleneck_attention import AbsolutePosition2d
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
from hybrid_mm.layers.convolution.mbconv import MBConv
from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d, make_pos_embed
from hybrid_mm.layers.folded_norm import Conv2dNorm, LinearNorm
from hybrid_mm.layers.initialisation import lecun_normal_
from hybrid_mm.layers.relative_position import DecomposedPosition2d

CUT = 0.8796256610342398  # of a normal's spread, what is left if it is cut at two deviations


def he(out_channels, kernel=1):
    """Standard deviation by fan-out, which groups do not divide in torch's count."""
    return (2 / (out_channels * kernel**2)) ** 0.5


def uniform(fan_in):
    """Standard deviation of torch's own linear layers and convolutions."""
    return (3 * fan_in) ** -0.5


def acmix(shift):
    module = ACmix2d(32, 1024, heads=8)
    module.he_init(shift)
    return module


# name: (how to make it, {parameter: standard deviation, or the number that it is full of as a str})
CASES = {
    'AAConv2d': (
        lambda: AAConv2d(8, 16, key_channels=128, value_channels=8, heads=2, size=(20, 9)),
        {'relative.rel_h': 1 / 8, 'relative.rel_w': 1 / 8}),
    'ACmix2d': (
        lambda: acmix(True),
        {'qkv.weight': he(1024), 'position.weight': he(128), 'mix.fc.weight': he(9),
         'rate1': '0.5', 'rate2': '0.5'}),
    'ACmix2d without shifts': (lambda: acmix(False), {'mix.dep_conv.weight': he(1024, 3)}),
    'ACmixWindowAttention': (
        lambda: ACmixWindowAttention(64, 7, 8),
        {'relative_bias': 0.02, 'rate1': '0.5', 'rate2': '0.5'}),
    'ACmixSpatialReductionAttention': (
        lambda: ACmixSpatialReductionAttention(8, 2), {'rate1': '0.5', 'rate2': '0.5'}),
    'AbsolutePosition2d': (
        lambda: AbsolutePosition2d((30, 40), 64), {'emb_h': 1 / 8, 'emb_w': 1 / 8}),
    'AttentionStem': (
        lambda: AttentionStem(32, 512, 16, 2, 6),
        {'emb_row': 1 / 16, 'emb_col': 1 / 16, 'emb_mix': 1 / 16, 'query_conv.weight': he(512),
         'key_conv.weight': he(512), 'value_conv.5.weight': he(512)}),
    'BottleneckAttention': (
        lambda: BottleneckAttention(400, (10, 30), 256, qkv_bias=True),
        {'qkv.weight': 1 / 20, 'qkv.bias': '0', 'relative.rel_h': 1 / 8, 'relative.rel_w': 1 / 8}),
    'DecomposedPosition2d': (
        lambda: DecomposedPosition2d((40, 30), (20, 60), 64, std=0.02),
        {'rel_h': 0.02, 'rel_w': 0.02}),
    'DecomposedPosition2d of a network without': (
        lambda: DecomposedPosition2d((4, 3), (2, 6), 4), {'rel_h': '0', 'rel_w': '0'}),
    'DeformConv2d': (
        lambda: DeformConv2d(64, 4),
        {'weight': he(64, 3), 'conv_offset.weight': '0', 'conv_offset.bias': '0'}),
    'ELSA': (
        lambda: ELSA(64, 4, 5),
        {'ghost_head/0': 1.0, 'ghost_head/1': 0.02, 'conv.weight': uniform(8 * 25),
         'pre_proj.weight': uniform(64)}),
    'ELSA of ELSA-Swin': (lambda: ELSA(64, 4, 7, lam=0), {'ghost_head/0': 0.02}),
    'GlobalLocalFilter': (lambda: GlobalLocalFilter(32, (14, 8)), {'spectrum': 0.02}),
    'GlobalRelativeAttention': (
        lambda: GlobalRelativeAttention(64, (9, 14), 16), {'relative_bias.table': 0.02}),
    'HaloAttention': (
        lambda: HaloAttention(100, 128, heads=2, qkv_bias=True),
        {'q.weight': 1 / 10, 'kv.weight': 1 / 10, 'q.bias': '0', 'kv.bias': '0',
         'relative.rel_h': 1 / 8, 'relative.rel_w': 1 / 8}),
    'LESA2d': (
        lambda: LESA2d(64, (30, 20), 2),
        {'qkv.weight': 1 / 8, 'local.weight': he(64, 3), 'mix.weight': he(64),
         'reason.weight': he(64), 'project.weight': he(64), 'rel_h': 1 / 4, 'rel_w': 1 / 4}),
    'LESA2d, flat': (
        lambda: LESA2d(64, (12, 9), 2, positions='flat'), {'rel': 32**-0.5, 'qkv.weight': 1 / 8}),
    'LeViTAttention': (
        lambda: LeViTAttention(64, 64, 16, 4, 2, 14, norm_weight=0.0),
        {'proj.norm.weight': '0', 'qkv.norm.weight': '1', 'distance_bias': '0'}),
    'LearnedQueryAttention2d': (
        lambda: LearnedQueryAttention2d(64, 128, 8, 7, queries=16),
        {'query': CUT / 4, 'scale': 0.02, 'relative_bias': '0', 'k.weight': 1 / 8,
         'v.weight': 1 / 8, 'proj.weight': 128**-0.5}),
    'LinearNorm': (
        lambda: LinearNorm(3, 5, 0.25), {'norm.weight': '0.25', 'norm.bias': '0'}),
    'LocalSelfAttention2d': (
        lambda: LocalSelfAttention2d(32, 512, 7, 2, share_rel=False),
        {'rel_h': 1 / 16, 'rel_w': 1 / 16, 'query_conv.weight': he(512)}),
    'NeighborhoodAttention2d': (
        lambda: NeighborhoodAttention2d(64, 8, 7), {'relative_bias': 0.02}),
    'PairwiseAttention2d': (
        lambda: PairwiseAttention2d(4, 2, 8, 4, mix=True), {'rate1': '0.5', 'rate2': '0.5'}),
    'PartitionAttention': (
        lambda: PartitionAttention(64, (7, 10), 16), {'relative_bias.table': 0.02}),
    'PeripheralConv2d': (
        lambda: PeripheralConv2d(16, 51), {'weight': 0.02, 'pos_embed': 0.02}),
    'PeripheralConv2d of a spread': (
        lambda: PeripheralConv2d(16, 51, init_std=0.2), {'weight': 0.2, 'pos_embed': 0.02}),
    'PoolingAttention': (
        lambda: PoolingAttention(8, 64, 1, (28, 20), 1, 4),
        {'relative.rel_h': 0.02, 'relative.rel_w': 0.02, 'norm_q.weight': '1'}),
    'QuadraticAttention2d': (
        lambda: QuadraticAttention2d(16, 16, 1000),
        {'centers': 2.0, 'value.weight': 0.02, 'value.bias': '0'}),
    'QuadraticAttention2d, learned': (
        lambda: QuadraticAttention2d(64, 16, 16, 'learned_content'),
        {'table_h': 0.02, 'table_w': 0.02, 'head_h': 0.02, 'query.weight': 0.02,
         'query.bias': '0'}),
    'position embedding of a kernel': (
        lambda: nn.ParameterDict(dict(h=make_pos_embed(51))), {'h': 0.02}),
    'WindowAttention': (lambda: WindowAttention(64, 7, 8), {'relative_bias': 0.02}),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_spread(name):
    torch.manual_seed(0)
    make, wanted = CASES[name]
    found = dict(make().named_parameters())
    for key, expected in wanted.items():
        key, *part = key.split('/')
        value = found[key][int(part[0])] if part else found[key]
        if isinstance(expected, str):
            assert (value == float(expected)).all(), key
            continue
        # four standard errors of the spread of so many numbers
        close = 4 / (2 * value.numel()) ** 0.5
        assert close < 0.25, f'{key}: too few numbers'
        assert value.std().item() == pytest.approx(expected, rel=close), key
        assert value.mean().abs() < 4 * expected / value.numel() ** 0.5, key


@pytest.mark.parametrize('mode', ['isotropic', 'full'])
def test_spreads_of_quadratic_attention(mode):
    """About 1, or about the identity, with the official deviation of 0.01."""
    torch.manual_seed(0)
    spreads = QuadraticAttention2d(2, 2, 800, mode).spreads.detach()
    middle = torch.eye(2) if mode == 'full' else torch.tensor(1.0)
    assert (spreads - middle).std().item() == pytest.approx(0.01, rel=0.1)
    assert (spreads - middle).mean().abs() < 0.002
    wide = QuadraticAttention2d(2, 2, 800, mode, center_std=0.5, spread_std=0.2)
    assert wide.centers.std().item() == pytest.approx(0.5, rel=0.1)
    assert (wide.spreads - middle).std().item() == pytest.approx(0.2, rel=0.1)


def test_shifts_of_acmix():
    """Kernel p of every channel is the shift to tap p; ``he_init`` leaves it where it shall."""
    expected = torch.eye(9).view(9, 3, 3)
    mix = MixedShift(6, 4, 2)
    assert torch.equal(
        mix.dep_conv.weight, expected.repeat(8, 1, 1, 1, 1).flatten(0, 1).view(8, 9, 3, 3)
    )
    assert all(torch.equal(w, expected) for w in acmix(True).mix.dep_conv.weight)
    assert not any(torch.equal(w, expected) for w in acmix(False).mix.dep_conv.weight)


def test_lecun():
    """Variance 1 / fan-in after the cut at two standard deviations of the normal."""
    torch.manual_seed(0)
    weight = lecun_normal_(torch.empty(400, 25, 2, 2))
    std = 0.1
    assert weight.std().item() == pytest.approx(std, rel=0.015)
    limit = 2 * std / CUT
    assert 0.97 * limit < weight.abs().max() <= limit * (1 + 1e-6)
    # of a normal of that spread, 4.55 % lie beyond: none are left, and the rest is a normal
    inner = (weight.abs() < limit / 2).float().mean().item()
    assert inner == pytest.approx(math.erf(2**-0.5) / math.erf(2**0.5), abs=0.01)


NORMS = {
    'LayerNorm2d': (lambda: LayerNorm2d(4), 1e-5),
    'ConvolutionalProjection': (lambda: ConvolutionalProjectionAttention(4, 2), 1e-5),
    'Conv2dNorm': (lambda: Conv2dNorm(4, 4), 1e-5),
    'LESA2d': (lambda: LESA2d(8, (4, 4), 2), 1e-5),
    'LeViTAttention': (lambda: LeViTAttention(4, 4, 2, 2, 2, 3, 2), 1e-5),
    'MBConv': (lambda: MBConv(4, 4), 1e-5),
    'PatchwiseAttention2d': (lambda: PatchwiseAttention2d(4, 2, 8, 4), 1e-5),
    'SpatialReductionAttention': (lambda: SpatialReductionAttention(4, 2, 2), 1e-5),
    # the official code of HorNet and of MViTv2
    'GlobalLocalFilter': (lambda: GlobalLocalFilter(4, (3, 2)), 1e-6),
    'PoolingAttention': (lambda: PoolingAttention(4, 4, 2, (8, 8)), 1e-6),
}


@pytest.mark.parametrize('name', NORMS)
def test_numbers_of_norms(name):
    make, eps = NORMS[name]
    kinds = nn.LayerNorm | nn.modules.batchnorm._BatchNorm
    norms = [m for m in make().modules() if isinstance(m, kinds)]
    assert norms
    assert {norm.eps for norm in norms} == {eps}
    assert {getattr(norm, 'momentum', 0.1) for norm in norms} == {0.1}


def test_eps_counts():
    """On a map that hardly varies eps is what the result hangs on."""
    x = torch.tensor([-2e-3, 2e-3]).view(1, 2, 1, 1).repeat(1, 1, 2, 3)
    expected = 2e-3 / (4e-6 + 1e-5) ** 0.5
    found = LayerNorm2d(2)(x)
    torch.testing.assert_close(found[0, 1], torch.full((2, 3), expected))
