"""Weights that were made for another size of the image, in every way to load them.

``FITTED`` has every argument that a table depends on; ``OTHER_SIZES`` those that say nothing about
the image, with what they are. A new argument of either kind has to be in one of them.
"""

import copy
import dataclasses
import inspect
import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseTTAModel, ExponentialMovingAverage
from mmengine.runner.checkpoint import _load_checkpoint_to_model, load_checkpoint
from torch import nn

import hybrid_mm.registry
from hybrid_mm.backbones import BaseBackbone
from hybrid_mm.checkpoints import CheckpointError, check_weights
from hybrid_mm.convert import convert
from hybrid_mm.engine.starting_weights import starting_weights
from hybrid_mm.layers import AAConv2d, HaloAttention
from hybrid_mm.ops.fitted_weights import fitted_weights
from hybrid_mm.registry import MODELS

_RESNET = dict(
    arch=dict(
        stem=8,
        bottleneck=True,
        depths=[1, 1, 1, 2],
        widths=[4, 8, 8, 16],
        out_channels=[8, 12, 16, 20],
    )
)
_BOTTLENECKS = dict(
    depths=[1, 1, 1, 1],
    channels=[8, 12, 16, 20],
    heads=[2] * 4,
    stem=dict(kind='tiered', channels=16, pool=True),
    attention=[False, False, True, True],
)
_SWIN = dict(embed_dim=8, depths=[1, 1, 1, 1], heads=[2, 2, 4, 4])
_PVT = dict(
    depths=[1, 1, 1, 1],
    embed_dims=[8, 12, 16, 24],
    heads=[1, 2, 2, 3],
    mlp_ratios=[2, 2, 2, 2],
    reductions=[8, 4, 2, 1],
)
_NAT = dict(embed_dim=8, depths=[1, 1, 1, 1], heads=[1, 2, 2, 4], mlp_ratio=2.0, layer_scale=None)
_HYBRID = dict(depths=[1, 1, 1, 1], channels=[8, 12, 16, 24], stem=dict(channels=(4, 8), bias=True))
_MAXVIT = dict(
    _HYBRID,
    conv=dict(act='gelu_tanh', padding='same'),
    norm=dict(eps=1e-3, momentum=0.01),
    ln_eps=1e-5,
    approximate='tanh',
)
_COATNET = dict(
    _HYBRID,
    kinds=['C', 'C', 'T', 'T'],
    conv=dict(act='gelu', padding='symmetric'),
    attention=dict(),
    norm=dict(eps=1e-5, momentum=0.1),
    ln_eps=1e-6,
)
_QNA = dict(
    embed_dim=8,
    qna_depths=[1, 1, 1, 0],
    qna_heads=[2, 4, 4, 8],
    kernel_sizes=[3, 3, 3, 3],
    window_depths=[0, 0, 1, 1],
    window_heads=[1, 2, 2, 4],
)
_LEVIT = dict(
    embed_dims=[16, 20, 24],
    key_dims=[4, 4, 6],
    heads=[2, 3, 2],
    depths=[1, 1, 1],
    mlp_ratios=[2] * 3,
    value_ratios=[2, 2, 3],
    shrink_heads=[None, 4, 3],
    shrink_key_dims=[None, 4, 5],
    shrink_value_ratios=[None, 4, 2],
    shrink_mlp_ratios=[None, 2, 3],
)
_HOR = dict(depths=[1, 1, 1, 1], dims=[8, 12, 16, 32], orders=[2, 3, 4, 5])
_VIT = dict(embed_dim=16, heads=2, depths=[1, 1])

# network -> argument -> settings, value of a file, our value
FITTED = {
    'ViT': {
        'pretrain_img_size': (dict(arch=_VIT, out_indices=(1,)), 64, (96, 128)),
        'img_size': (
            dict(arch=_VIT, out_indices=(1,), relative=True, class_token=False),
            [64, 96],
            (128, 64),
        ),
        'window_size': (
            dict(arch=_VIT, out_indices=(1,), relative=True, class_token=False, global_blocks=()),
            3,
            4,
        ),
        'patch_size': (
            dict(arch=_VIT, out_indices=(1,), pretrain_img_size=112, img_size=112),
            14,
            16,
        ),
    },
    'PVT': {'img_size': (dict(arch=_PVT), 64, (96, 128))},
    'MViTv2': {
        'img_size': (
            dict(arch=dict(embed_dim=8, heads=1, depths=[1, 1, 1, 1])),
            (64, 96),
            [128, 96],
        )
    },
    'LeViT': {'img_size': (dict(arch=_LEVIT), 96, (128, 192))},
    'BoTNet': {
        'canvas_size': (dict(arch=_BOTTLENECKS), (64, 128), (96, 96)),
        'canvas_size, absolute': (
            dict(arch=_BOTTLENECKS, position='absolute'),
            (64, 128),
            (96, 96),
        ),
    },
    'AAResNet': {
        'canvas_size': (dict(_RESNET, heads=2, min_key_dim=3), (64, 96), (96, 128)),
    },
    'EAAAResNet': {
        'canvas_size': (dict(_RESNET, heads=2, upsilon=0.25), (64, 96), (96, 128)),
        'max_tokens': (dict(_RESNET, heads=2, upsilon=0.25, canvas_size=128), 12, 64),
    },
    'LESAResNet': {'canvas_size': (dict(_RESNET, groups=2), (64, 96), (96, 128))},
    'MaxViT': {
        'window_size': (dict(arch=_MAXVIT, head_width=4), 3, (4, 5)),
        'grid_size': (dict(arch=_MAXVIT, head_width=4, window_size=4), (2, 3), 5),
        'arch.window_size': (dict(arch=_MAXVIT, head_width=4), (2, 3), (3, 3)),
        'arch.grid_size': (dict(arch=_MAXVIT, head_width=4), (2, 3), (4, 4)),
    },
    'CoAtNet': {'img_size': (dict(arch=_COATNET, head_width=4), (64, 96), (96, 128))},
    'HorNet': {
        'filter_sizes': (
            dict(arch=dict(_HOR, filter_sizes=[None] * 4)),
            [None, None, [14, 8], [7, 4]],
            (None, None, (8, 9), (4, 5)),
        ),
        'arch.filter_sizes': (
            dict(arch=_HOR),
            [None, None, (14, 8), (7, 4)],
            [None, None, (8, 9), (4, 5)],
        ),
    },
    'ACmixSwin': {'window_size': (dict(arch=_SWIN), 4, [4, 4, 3, 7])},
    'ELSASwin': {
        'window_size': (dict(arch=dict(_SWIN, group_width=4)), 4, 7),
    },
    'NAT': {'kernel_size': (dict(arch=_NAT), 3, 7)},
    'DiNAT': {'kernel_size': (dict(arch=_NAT), 7, 5)},
    'DiNATs': {'kernel_size': (dict(arch=_SWIN), 3, 5)},
    'QnAViT': {
        'arch.window_sizes': (dict(arch=_QNA), [7, 7, 4, 3], [7, 7, 6, 5]),
    },
    'QuadraticAttentionEncoder': {
        'positions': (dict(depth=1, mode='learned'), 4, 6),
    },
}
CASES = [
    pytest.param(network, argument, id=f'{network}-{argument}', marks=pytest.mark.part_of(f'network:{network}'))
    for network, arguments in FITTED.items()
    for argument in arguments
]  # fmt: skip
