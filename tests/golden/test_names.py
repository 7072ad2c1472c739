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

from hybrid_mm.backbones import ViT
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
    'vit': dict(
        type='VisionTransformer',
        arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=48),
        img_size=(64, 96),
        layer_scale_init_value=0.1,
        out_type='featmap',
        out_indices=(0, 2),
    ),
    'mvitv2': dict(
        type='MViT',
        arch=dict(embed_dims=8, num_layers=5, num_heads=1, downscale_indices=[1, 2, 4]),
        img_size=64,
        adaptive_kv_stride=2,
        dim_mul_in_attention=False,
        rel_pos_zero_init=True,
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


def test_timm_with_two_sides_and_layer_scales():
    config = dict(img_size=[48, 80], embed_dim=16, depth=2, num_heads=2, num_classes=3)
    model = ViT(
        dict(embed_dim=16, heads=2, depths=[1, 1]),
        pretrain_img_size=(48, 80),
        out_indices=(0, 1),
        final_norm=True,
        layer_scale=0.1,
    )
    ours = randomised(model)
    weights = {'head.weight': torch.rand(3, 16).double(), 'head.bias': torch.rand(3).double()}
    for key, value in ours.state_dict().items():
        key = key.replace('stages.0.', '').replace('stages.1.blocks.0', 'blocks.1')
        key = key.replace('stages.1.', '').replace('gamma1', 'ls1.gamma')
        key = key.replace('stem.', 'patch_embed.').replace('gamma2', 'ls2.gamma')
        key = key.replace('patch_embed.class_token', 'cls_token')
        weights[key.replace('patch_embed.position', 'pos_embed')] = value
    mapping = importlib.import_module('mappings.vit')
    built = mapping.build('VisionTransformer', dict(config, init_values=0.1), weights)
    x = torch.randn(2, 3, 48, 80, dtype=torch.float64)
    with torch.no_grad():
        *maps, logits = built.double().eval()(x)
        (first, last), tokens = ours(x), []
        ours.stages[-1].register_forward_hook(lambda *a: tokens.append(a[-1][0]))
        ours(x)
    assert torch.equal(maps[0], first)
    expected = ours.stages[-1].norm(tokens[0])[:, 0] @ weights['head.weight'].T
    assert check.compare(logits, expected + weights['head.bias']) < 1e-9
    assert last.shape == maps[1].shape == (2, 16, 3, 5)
    with pytest.raises(ValueError, match='cannot map pre_norm=True'):
        mapping.build('VisionTransformer', dict(config, pre_norm=True), weights)


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
