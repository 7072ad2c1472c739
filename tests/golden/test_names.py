"""Mappings of the golden cases take MMPretrain's configs and the names of MMCV's norms."""

import importlib
import sys
from pathlib import Path

import mmpretrain.models  # noqa: F401
import pytest
import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.registry import MODELS
from torch import nn

from hybrid_mm.layers import RecursiveGatedConv

sys.path.insert(0, str(Path(__file__).parent))
import check

DW = dict(type='DW', kernel_size=7)
CASES = {
    'van': dict(
        type='VAN',
        arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, ffn_ratios=[2, 2, 2, 2]),
        out_indices=(1, 3),
    ),
    'hornet': dict(
        type='HorNet',
        arch=dict(
            base_dim=16,
            depths=[1, 1, 1, 1],
            orders=[2, 3, 4, 5],
            dw_cfg=[DW, DW, dict(type='GF', h=4, w=3), DW],
        ),
        gap_before_final_norm=False,
        out_indices=(1, 3),
    ),
    'replknet': dict(
        type='RepLKNet',
        arch=dict(
            large_kernel_sizes=[9, 7, 7, 5],
            layers=[1] * 4,
            channels=[8, 8, 16, 16],
            small_kernel=5,
            dw_ratio=1,
        ),
        out_indices=(1, 3),
    ),
}


def randomised(module):
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.2, 1.0) if tensor.dim() == 1 else tensor.normal_(std=0.2)
    module.double().eval()  # which returns None in some networks of MMPretrain
    return module


@pytest.mark.parametrize('system', CASES)
def test_configs_of_mmpretrain(system):
    config = dict(CASES[system])
    theirs = randomised(MODELS.build(dict(config, type=f'mmpretrain.{config["type"]}')))
    mapping = importlib.import_module(f'mappings.{system}')
    weights = {key: value.double() for key, value in theirs.state_dict().items()}
    ours = mapping.build(config.pop('type'), config, weights).double().eval()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        pairs = list(zip(ours(x), theirs(x), strict=True))
    assert max(check.compare(*pair) for pair in pairs) < 1e-6


@pytest.mark.parametrize('norm, act', [
    ('BN', 'GELU'), ('SyncBN evaluated as BatchNorm2d eps 1e-3', None),
    (dict(type='GN', num_groups=4), dict(type='LeakyReLU')), (None, None),
], ids=str)  # fmt: skip
def test_norm_and_activation_of_gated_convolutions(norm, act):
    config = dict(in_channels=12, out_channels=8, norm_cfg=norm, act_cfg=act)
    conv = randomised(RecursiveGatedConv(12, 8, 8, 2, 5))
    weights = {key.replace('gates.', 'pws.'): value for key, value in conv.state_dict().items()}
    layers = [conv]
    if norm:
        settings = (
            norm if isinstance(norm, dict) else dict(type='BN', eps=1e-3 if ' ' in norm else 1e-5)
        )
        name, layer = build_norm_layer(settings, 8)
        layers.append(randomised(layer))
        weights |= {f'{name}.{key}': value for key, value in layer.state_dict().items()}
    if act:
        layers.append(build_activation_layer(act if isinstance(act, dict) else dict(type=act)))
    x = torch.randn(2, 12, 9, 7, dtype=torch.float64)
    ours = importlib.import_module('mappings.hornet').build('GNConvModule', config, weights)
    with torch.no_grad():
        assert check.compare(ours.double().eval()(x), nn.Sequential(*layers)(x)) < 1e-12
