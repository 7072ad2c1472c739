"""Official attention modules, timm's, and bottlenecks with them."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch.nn.functional as F
from mmdet.models.backbones.resnet import Bottleneck
from torch import Tensor, nn

from hybrid_mm.convert.attention_modules import NAME
from hybrid_mm.plugins import (
    BAM,
    CBAM,
    ECA,
    SE,
    CoordinateAttention,
    GatherExcite,
    LambdaLayer,
    SelectiveKernel,
    TripletAttention,
    lambda_layer,
)
from mappings.common import Config, convert_part, load

LAYOUT_NOTE = (
    "the stored gradient is reproduced in timm's memory layout, where torch's batch norm is wrong "
    'for one image; ours is the derivative of the outputs'
)


def _tokens(q, k, v, weight, bias=None, dilation=1):
    """lambda_attention on maps flattened to tokens, as timm computes it."""
    n, dim, h, w = k.shape
    q = q.reshape(n, -1, dim, h * w).transpose(-1, -2)
    v = v.flatten(2).transpose(-1, -2)
    content = q @ (k.flatten(2).softmax(-1) @ v).unsqueeze(1)
    maps = v.reshape(n, 1, h, w, -1)
    padding = [dilation * (s // 2) for s in weight.shape[2:]] + [0]
    dilations = (dilation, dilation, 1)
    position = F.conv3d(maps, weight.unsqueeze(-1), bias, padding=padding, dilation=dilations)
    position = position.reshape(n, 1, dim, h * w, -1).transpose(2, 3)
    out = content + (q.unsqueeze(-2) @ position).squeeze(-2)
    return out.transpose(-1, -2).reshape(n, -1, h, w)


@contextlib.contextmanager
def reference_layout() -> Iterator[None]:
    """Our lambda layer in timm's memory layout: same values, other strides.

    With one image the gradient reaches the batch norms with strides (C, 1, WC, C), which torch's
    CPU kernel (seen in 2.14.1) reads in the wrong order.
    """
    with mock.patch.object(lambda_layer, 'lambda_attention', _tokens):
        yield


_BLOCK = 'layer1.0.'
# official class -> (function that builds ours, where it is officially, and in ours)
_MODULES = {}


def _maps(*names: str, official: str, ours: str | None = None):
    def add(function):
        for name in names:
            _MODULES[name] = function, official, ours or official
        return function

    return add


def _given(**found) -> dict:
    return {k: v for k, v in found.items() if v is not None}


def _name(value) -> str:
    """'nn.ReLU', 'ReLU', 'relu' and so on as a plain name."""
    return str(value).rsplit('.', 1)[-1].replace('inplace', '').strip("<>'() ").lower()


def _functions(config: Config) -> dict:
    act = _name(config.take('act', 'act_layer', default='relu'))
    gate = _name(config.take('gate', 'gate_layer', default='sigmoid')).replace(
        'hardsig', 'hard_sig'
    )
    return dict(act={'swish': 'silu'}.get(act, act), gate=gate)


def _hidden(config: Config, ratio: float, divisor: int) -> dict:
    """timm's rd_ratio, rd_channels, rd_divisor."""
    return dict(
        ratio=1 / config.take('rd_ratio', default=ratio),
        divisor=config.take('rd_divisor', default=divisor),
        hidden_channels=config.take('rd_channels') or None,
    )


@_maps('SEModule', 'SqueezeExcite', 'SELayer', official=f'{_BLOCK}se.')
def _se(config: Config) -> nn.Module:
    channels = config.take('channels', 'channel')
    config.ignore(add_maxpool=(False,), norm_layer=(None,))
    if 'ratio' in config or 'reduction' in config:
        hidden = dict(ratio=config.take('ratio', 'reduction'))
    else:
        hidden = _hidden(config, 1 / 16, 8)
    bias = config.take('bias', default=True)
    return SE(channels, bias=bias, **hidden, **_functions(config))


@_maps('BAM', official='bam1.', ours='layer1.bam.')
def _bam(config: Config) -> nn.Module:
    return BAM(
        config.take('gate_channel', 'gate_channels'),
        **_given(
            ratio=config.take('reduction_ratio', 'reduction'),
            channel_layers=config.take('channel_num_layers', 'num_layers'),
            spatial_layers=config.take('dilation_conv_num'),
            dilation=config.take('dilation_val'),
        ),
    )


def _cbam_arguments(config: Config) -> dict:
    spatial = not config.take('no_spatial', default=False)
    return dict(
        spatial=spatial,
        **_given(
            ratio=config.take('reduction_ratio', 'reduction'),
            pools=config.take('pool_types'),
            kernel_size=config.take('kernel_size'),
        ),
    )


@_maps('CBAM', official=f'{_BLOCK}cbam.')
def _cbam(config: Config) -> nn.Module:
    return CBAM(config.take('gate_channels', 'gate_channel'), **_cbam_arguments(config))


@_maps('eca_layer', 'ECALayer', 'EcaModule', official=f'{_BLOCK}eca.')
def _eca(config: Config) -> nn.Module:
    # the official class has a width whatever the channels are, timm's takes it from them
    channels = config.take('channel', 'channels')
    config.ignore(
        use_mlp=(False,),
        act_layer=(None,),
        gate_layer=('sigmoid',),
        rd_ratio=...,
        rd_channels=...,
        rd_divisor=...,
    )
    if 'k_size' in config or channels is None:
        return ECA(channels or 1, config.take('k_size', 'kernel_size', default=3))
    config.ignore(kernel_size=...)
    return ECA(channels, **{k: config.take(k) for k in ('gamma', 'beta') if k in config})


@_maps('GatherExcite', official=f'{_BLOCK}se.', ours=f'{_BLOCK}ge.')
def _ge(config: Config) -> nn.Module:
    config.ignore(add_maxpool=(False,), norm_layer=('BatchNorm2d', 'nn.BatchNorm2d'))
    learned = config.take('extra_params', default=False)
    extent = config.take('extent', default=0)
    size = config.take('feat_size')
    return GatherExcite(
        config.take('channels'),
        extent,
        learned,
        mlp=config.take('use_mlp', default=True),
        map_size=tuple(size)
        if isinstance(size, list) and learned and not extent
        else size
        if learned and not extent
        else None,
        padded=True,
        **_hidden(config, 1 / 16, 1),
        **_functions(config),
    )


@_maps('SelectiveKernel', official=f'{_BLOCK}conv2.')
def _sk(config: Config) -> nn.Module:
    kernels = config.take('kernel_size', default=[3, 5]) or [3, 5]
    channels = config.take('in_channels')
    out_channels = config.take('out_channels') or channels
    config.ignore(
        aa_layer=(None,),
        drop_layer=(None,),
        act_layer=('ReLU', 'nn.ReLU'),
        norm_layer=('BatchNorm2d', 'nn.BatchNorm2d'),
    )
    return SelectiveKernel(
        channels,
        out_channels,
        stride=config.take('stride', default=1),
        dilation=config.take('dilation', default=1),
        groups=min(out_channels, config.take('groups', default=1)),
        kernel_sizes=kernels if isinstance(kernels, list | tuple) else [kernels] * 2,
        dilated=config.take('keep_3x3', default=True),
        split_input=config.take('split_input', default=True),
        min_channels=1,
        **_hidden(config, 1 / 16, 8),
    )


def _triplet_arguments(config: Config) -> dict:
    config.ignore(gate_channels=..., reduction_ratio=..., pool_types=...)
    spatial = not config.take('no_spatial', default=False)
    return dict(spatial=spatial, kernel_size=config.take('kernel_size', default=7))


@_maps('TripletAttention', official=f'{_BLOCK}triplet_attention.')
def _triplet(config: Config) -> nn.Module:
    return TripletAttention(1, **_triplet_arguments(config))


@_maps('CoordAtt', official=f'{_BLOCK}coord_att.')
def _coordinate(config: Config) -> nn.Module:
    channels = config.take('inp')
    config.ignore(oup=(channels,))
    return CoordinateAttention(channels, ratio=config.take('reduction', default=32))


@_maps('LambdaLayer', official=f'{_BLOCK}conv2.')
def _lambda(config: Config) -> nn.Module:
    window, size = config.take('r', default=9), config.take('feat_size')
    if window is None:  # a table for maps of one size
        size = (size, size) if isinstance(size, int) else size
        window, position_bias = tuple(2 * s - 1 for s in size), False
    else:
        position_bias = True
    return LambdaLayer(
        config.take('dim'),
        config.take('dim_out'),
        stride=config.take('stride', default=1),
        num_heads=config.take('num_heads', default=4),
        key_channels=config.take('dim_head', default=16) or None,
        qk_ratio=config.take('qk_ratio', default=1.0),
        qkv_bias=config.take('qkv_bias', default=False),
        window=window,
        position_bias=position_bias,
    )


@_maps('Bottleneck', 'ECABottleneck', official=_BLOCK)
def _bottleneck(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    planes, stride = config.take('planes'), config.take('stride', default=1)
    plugin = None
    if config.take('use_cbam', default=False):
        plugin = dict(type='hybrid_mm.CBAM', **_cbam_arguments(config))
    elif config.take('use_triplet_attention', default=False):
        plugin = dict(type='hybrid_mm.TripletAttention', **_triplet_arguments(config))
    elif 'k_size' in config or 'eca.conv.weight' in weights:
        plugin = dict(type='hybrid_mm.ECA', kernel_size=config.take('k_size', default=3))
    config.ignore(downsample=..., reduction=(16,), use_cbam=(False,))
    inplanes = config.take('inplanes')
    downsample = None
    if 'downsample.0.weight' in weights:
        conv = nn.Conv2d(inplanes, 4 * planes, 1, stride, bias=False)
        downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * planes))
    plugins = None if plugin is None else [dict(cfg=plugin, position='after_conv3')]
    return Bottleneck(inplanes, planes, stride, downsample=downsample, plugins=plugins)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for an official one."""
    if module not in _MODULES:
        raise ValueError(f'unknown module {module!r}')
    config = Config(config)
    function, official, ours = _MODULES[module]
    model = function(config, weights) if function is _bottleneck else function(config)
    config.done()
    return load(model, convert_part(weights, official, ours, NAME))
