"""Kernels side by side: what a deployed network of RepLKNet, SLaK and PeLK computes."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import PeLK, RepLKNet, SLaK
from hybrid_mm.backbones.frames.parallel_kernels import ParallelKernels, add_to_center
from hybrid_mm.backbones.pelk import PartialPeripheralConv2d
from hybrid_mm.backbones.slak import slak_kernels
from hybrid_mm.layers import DepthwiseConv2d

from ..conftest import used

TINY = dict(depths=[1, 1, 2, 1], dims=[8, 12, 16, 20])
WIDE = dict(kernel_sizes=(101, 69, 67, 13), center_size=7)
REPLK = dict(
    kernel_sizes=[31, 13, 7, 5],
    depths=[1, 1, 2, 1],
    channels=[8, 12, 16, 20],
    small_kernel=5,
    dw_ratio=1.5,
)


@pytest.mark.parametrize(
    'make',
    [
        lambda: SLaK(TINY, (31, 13, 7, 5)),
        lambda: SLaK(TINY, (31, 13, 7, 5), decomposed=False),
        lambda: SLaK(TINY, (31, 13, 7, 5), norm_cfg=None),
        lambda: RepLKNet(REPLK, norm_outputs='all'),
        lambda: RepLKNet(dict(REPLK, small_kernel=None)),
        lambda: PeLK(TINY),
        lambda: PeLK(TINY, pos_embed='valid', **WIDE),
        lambda: PeLK(TINY, pos_embed='none', pos_embed_per_channel=True),
        lambda: PeLK(TINY, pos_embed='bias', pos_embed_per_channel=True, partial_ratio=1.0),
    ],
)
def test_deployed_network_computes_the_same(make):
    model, x = used(make()), torch.rand(1, 3, 64, 97, dtype=torch.float64)
    before = model(x)
    model.switch_to_deploy()
    names = set(model.state_dict())
    assert not any(word in name for word in ('mixer.large.norm', 'small') for name in names)
    model.switch_to_deploy()  # a second time changes nothing
    for a, b in zip(model(x), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert not [name for name in names if name.endswith('pos_embed')]


@pytest.mark.parametrize(
    'make',
    [
        lambda **deploy: PeLK(TINY, pos_embed='valid', **deploy),
        lambda **deploy: SLaK(TINY, **deploy),
        lambda **deploy: RepLKNet(REPLK, **deploy),
    ],
)
def test_deployed_weights_load_into_a_network_built_for_them(make):
    model = make()
    model.switch_to_deploy()
    make(deploy=True).load_state_dict(model.state_dict())


def test_stripes_stay_stripes_when_merged():
    kernels = slak_kernels(4, 51, norm_cfg=dict(type='BN'))
    kernels.switch_to_deploy()
    shapes = {name: tuple(p.shape) for name, p in kernels.named_parameters()}
    assert shapes == {
        'tall.conv.weight': (4, 1, 51, 5),
        'tall.conv.bias': (4,),
        'wide.conv.weight': (4, 1, 5, 51),
    }


def test_small_kernel_that_does_not_fit_the_grid():
    mixer = PartialPeripheralConv2d(8, 4, 51, 5, dict(type='BN'), center_size=3)
    with pytest.raises(ValueError, match=r'5x5 kernel cannot be merged into the grid \[10, 8'):
        mixer.switch_to_deploy()
    assert mixer.large.conv.bias is None  # nothing was merged


@pytest.mark.parametrize('size', [(7, 5), (5, 7), (9, 3), (3, 3)])
def test_small_kernel_goes_to_the_centre(size):
    weight, small = torch.randn(2, 1, *size), torch.randn(2, 1, 3, 3)
    x = torch.randn(1, 2, 12, 11)
    expected = sum(
        nn.functional.conv2d(x, w, padding=tuple(k // 2 for k in w.shape[2:]), groups=2)
        for w in (weight, small)
    )
    add_to_center(weight, small)
    found = nn.functional.conv2d(x, weight, padding=(size[0] // 2, size[1] // 2), groups=2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_branches_are_summed_after_their_norms():
    kernels = {
        'large': DepthwiseConv2d(4, 7, bias=False),
        'wide': DepthwiseConv2d(4, (3, 9), bias=False),
        'small': DepthwiseConv2d(4, 3, bias=False),
    }
    layer = used(ParallelKernels(kernels, dict(type='BN', eps=0.1)))
    x = torch.randn(2, 4, 10, 13, dtype=torch.float64)
    expected = 0
    for name, conv in kernels.items():
        norm = getattr(layer, name).norm
        y = conv(x) - norm.running_mean[:, None, None]
        y = y / (norm.running_var + 0.1).sqrt()[:, None, None] * norm.weight[:, None, None]
        expected = expected + y + norm.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)
    layer.switch_to_deploy()
    assert set(layer.state_dict()) == {'large.conv.weight', 'large.conv.bias', 'wide.conv.weight'}
    torch.testing.assert_close(layer(x), expected)
