"""Every option of every plugin does something."""

import inspect

import pytest
import torch
from torch import nn

from hybrid_mm.plugins import (
    BAM,
    CBAM,
    ECA,
    SE,
    ACmix,
    ContextBlock,
    CoordinateAttention,
    GatherExcite,
    LambdaLayer,
    NonLocal2d,
    SASAConv2d,
    SASAStem,
    SelectiveKernel,
    SimplifiedNonLocal,
    TripletAttention,
)

NORM = dict(norm_cfg=dict(type='BN', eps=0.3), init_identity=True)
SIZE = 8, 12
# plugin: (arguments beside the channels, another value of each that is not the first)
OPTIONS = {
    SE: (dict(), dict(ratio=1, divisor=4, hidden_channels=5, bias=False, act='silu',
                      gate='hard_sigmoid', init_identity=True)),
    CBAM: (dict(ratio=4), dict(NORM, ratio=8, pools=('avg', 'lp'), spatial=False, kernel_size=5)),
    BAM: (dict(ratio=4), dict(NORM, ratio=8, channel_layers=2, spatial_layers=1, dilation=1)),
    ECA: (dict(), dict(kernel_size=5, gamma=0.5, beta=8, init_identity=True)),
    GatherExcite: (
        dict(mlp=True, ratio=4),
        dict(NORM, extent=2, learned=False, mlp=False, ratio=2, divisor=8, hidden_channels=3,
             act='silu', gate='hard_sigmoid')),
    TripletAttention: (dict(), dict(NORM, spatial=False, kernel_size=3)),
    CoordinateAttention: (dict(), dict(NORM, ratio=1, min_channels=4)),
    ContextBlock: (
        dict(ratio=1 / 4), dict(ratio=1 / 2, pooling_type='avg', fusion_types=('channel_mul',))),
    SimplifiedNonLocal: (dict(), dict()),
    NonLocal2d: (dict(), dict(std=0.3, zeros_init=False)),
    ACmix: (
        dict(),
        dict(out_channels=8, stride=2, dilation=2, kernel_att=3, heads=2, shift_init=False)),
    LambdaLayer: (
        dict(key_channels=4),
        dict(out_channels=8, stride=2, dilation=2, num_heads=2, key_channels=3, window=5,
             position_bias=False, qkv_bias=True, norm_cfg=dict(type='BN', eps=0.3))),
    SelectiveKernel: (
        dict(out_channels=64),
        dict(out_channels=32, stride=2, dilation=2, groups=2, kernel_sizes=(3, 7), dilated=False,
             hidden_channels=5, min_channels=8, split_input=True,
             norm_cfg=dict(type='BN', eps=0.3))),
    SASAStem: (
        dict(),
        dict(out_channels=32, block=2, heads=2, mixtures=3, norm_cfg=dict(type='BN', eps=0.3))),
    SASAConv2d: (
        dict(out_channels=16, kernel_size=3, padding=1),
        dict(out_channels=32, stride=2, bias=False, window=5, heads=4)),
}  # fmt: skip
# options that need others beside them
BESIDE = {
    (GatherExcite, 'map_size'): (dict(extent=0, learned=True, map_size=SIZE), (7, 12)),
    (GatherExcite, 'padded'): (dict(extent=0, map_size=SIZE), True),
    (LambdaLayer, 'qk_ratio'): (dict(key_channels=None), 0.5),
    (SelectiveKernel, 'ratio'): (dict(min_channels=1), 4),
    (SelectiveKernel, 'divisor'): (dict(min_channels=1), 3),
}
# of the convolution that is replaced, which must be as it is
FIXED = {
    ACmix: {'kernel_size', 'padding', 'groups', 'bias'},
    LambdaLayer: {'kernel_size', 'padding', 'groups', 'bias'},
    SelectiveKernel: {'kernel_size', 'padding', 'bias'},
    SASAConv2d: {'kernel_size', 'padding', 'groups', 'dilation', 'attention'},
    NonLocal2d: {'kwargs'},
}


def result(module):
    torch.manual_seed(1)
    x = torch.randn(2, 16, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        return module.train()(x)


def same(plugin, base, other) -> bool:
    """Whether two sets of arguments make the same module."""
    made = []
    for arguments in (base, other):
        torch.manual_seed(0)
        made.append(plugin(16, **arguments).double())
    states = [module.state_dict() for module in made]
    if [(k, v.shape) for k, v in states[0].items()] != [(k, v.shape) for k, v in states[1].items()]:
        return False
    if not all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True)):
        return False
    for parameter in made[0].parameters():
        nn.init.normal_(parameter)
    made[1].load_state_dict(made[0].state_dict())
    outs = [result(module) for module in made]
    return outs[0].shape == outs[1].shape and torch.allclose(*outs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('plugin', OPTIONS, ids=lambda plugin: plugin.__name__)
def test_every_option_has_an_effect(plugin):
    base, others = OPTIONS[plugin]
    known = list(inspect.signature(plugin.__init__).parameters)[2:]
    beside = {name for owner, name in BESIDE if owner is plugin}
    others = dict(others)
    if 'norm_eval' in known:
        others['norm_eval'] = True
    assert set(known) - {'impl'} == {*others, *beside, *FIXED.get(plugin, ())}
    assert same(plugin, base, dict(base)), 'not reproducible'
    for name, value in others.items():
        assert not same(plugin, base, {**base, name: value}), name
    for name in beside:
        more, value = BESIDE[plugin, name]
        first = {**base, **more}
        if name == 'map_size':
            assert plugin(16, **first).convs[0].kernel_size == SIZE
            assert plugin(16, **{**first, name: value}).convs[0].kernel_size == value
        else:
            assert not same(plugin, first, {**first, name: value}), name


def test_arguments_go_to_the_block_of_mmcv():
    assert NonLocal2d(16, reduction=4).g.conv.out_channels == 4
    assert NonLocal2d(16, mode='gaussian').mode == 'gaussian'
    assert isinstance(NonLocal2d(16, sub_sample=True).g, nn.Sequential)


@pytest.mark.parametrize('plugin', [LambdaLayer, SelectiveKernel, ACmix])
def test_arguments_of_the_convolution_that_is_replaced(plugin):
    for kwargs, message in (
        (dict(kernel_size=5), 'with kernel_size 3, got 5'),
        (dict(padding=0), 'with padding None or 1, got 0'),
        (dict(dilation=2, padding=1), 'with padding None or 2, got 1'),
        (dict(bias=True), 'with bias False, got True'),
    ):
        with pytest.raises(ValueError, match=f'{plugin.__name__} replaces convolutions {message}'):
            plugin(16, **kwargs)
    assert plugin(16, dilation=2, padding=2) is not None
