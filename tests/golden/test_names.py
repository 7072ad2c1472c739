"""Mappings of the golden cases take MMPretrain's configs and the names of MMCV's norms."""

import importlib
import json
import sys
from pathlib import Path

import mmpretrain.models  # noqa: F401
import pytest
import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.registry import MODELS
from safetensors.torch import load_file
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
    'vit-pre_norm': dict(
        type='VisionTransformer',
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=48),
        img_size=64,
        pre_norm=True,
        drop_rate=0.1,
        patch_cfg=dict(),
        init_cfg=None,
    ),
    'van-default': dict(type='VAN', patch_sizes=[7, 3, 3, 3], norm_cfg=dict(type='LN', eps=1e-6)),
    'hornet-pooled': dict(
        type='HorNet',
        arch=dict(base_dim=16, depths=[1, 1, 1, 1], orders=[2, 3, 4, 5], dw_cfg=[DW] * 4),
    ),
    'levit': dict(type='LeViT', arch='128s', img_size=64, out_indices=(0, -1), mlp_ratio=1),
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


@pytest.mark.parametrize('case', CASES)
def test_configs_of_mmpretrain(case):
    config, system = dict(CASES[case]), case.partition('-')[0]
    theirs = randomised(MODELS.build(dict(config, type=f'mmpretrain.{config["type"]}')))
    mapping = importlib.import_module(f'mappings.{system}')
    weights = {key: value.double() for key, value in theirs.state_dict().items()}
    ours = mapping.build(config.pop('type'), config, weights).double().eval()
    width = 64 if system == 'levit' else 96  # which has square maps
    x = torch.randn(2, 3, 64, width, dtype=torch.float64)
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
    with pytest.raises(ValueError, match='cannot map reg_tokens=2'):
        mapping.build('VisionTransformer', dict(config, reg_tokens=2), weights)


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


def test_timm_without_class_token_and_positions():
    torch.manual_seed(0)
    sizes = dict(embed_dim=16, heads=2, depths=[1])
    model = ViT(sizes, pretrain_img_size=64, class_token=False, pre_norm=True, out_indices=(0,))
    weights = {}
    for key, value in randomised(model).state_dict().items():
        key = key.replace('stages.0.', '').replace('stem.proj', 'patch_embed.proj')
        weights[key.replace('stem.pre_norm', 'norm_pre')] = value
    del weights['stem.position']
    model.stem.position.data.zero_()
    for name, shape in dict(head=(3, 16), fc_norm=(16,)).items():
        weights |= {f'{name}.weight': torch.rand(shape), f'{name}.bias': torch.rand(shape[0])}
    config = dict(embed_dim=16, depth=1, num_heads=2, num_classes=3, img_size=[64, 64])
    config |= dict(class_token=False, pos_embed='none', pre_norm=True, drop_rate=0.1)
    config |= dict(global_pool='avg', dynamic_img_size=True)
    mapping = importlib.import_module('mappings.vit')
    built = mapping.build('VisionTransformer', config, weights).double().eval()
    x = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        (theirs, logits), (ours,) = built(x), model(x)
    assert check.compare(theirs, ours) < 1e-12
    weights = {key: value.double() for key, value in weights.items()}
    pooled = nn.functional.layer_norm(
        ours.mean((2, 3)), (16,), weights['fc_norm.weight'], weights['fc_norm.bias'], 1e-6
    )
    assert check.compare(logits, pooled @ weights['head.weight'].T + weights['head.bias']) < 1e-12


def stored(system, name):
    path = Path(__file__).parent / 'data' / system / f'{name}.json'
    mapping = importlib.import_module(f'mappings.{system}')
    return mapping, json.loads(path.read_text()), load_file(path.with_suffix('.safetensors'))


def test_order_of_heads_in_timm():
    mapping, case, tensors = stored('maxvit', 'op_partition_grid')
    del case['config']['head_first']  # True by default, whatever the relative positions are
    for key in [key for key in tensors if '.qkv.' in key]:
        heads = len(tensors[key]) // 3 // case['config']['dim_head']
        rows = tensors[key].unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)
        assert not torch.equal(rows, tensors[key])
        tensors[key] = rows.contiguous()
    assert check.check_tensors(mapping, case, tensors)[0]
    mapping, case, tensors = stored('coatnet', 'op_transformer2d_s2')
    case['config']['head_first'] = False  # which attention to whole maps does not read
    assert check.check_tensors(mapping, case, tensors)[0]
    config = dict(in_chs=8, out_chs=8, padding='same', pool_type='avg')
    with pytest.raises(ValueError, match="padding='same' with pool_type='avg'"):
        mapping.build('MbConvBlock', config, {})


@pytest.mark.parametrize('kind', ['normal_elementwise', 'ones', 'avg', 'posneg'])
def test_scales_of_learned_queries(kind):
    mapping, case, tensors = stored('qna', 'op_k3_s2_up')
    weights = {k[7:]: v for k, v in tensors.items() if k.startswith('weight/')}
    (key,) = (key for key in weights if key.endswith('attn_scale_weights'))
    queries, heads = case['config']['n_queries'], case['config']['heads']
    table = weights[key].clone().view(9, queries, heads)
    theirs = {k: v for k, v in weights.items() if k != key}
    if kind == 'normal_elementwise':
        table[:] = table[:1]
        theirs[key] = table[0].reshape(1, 1, 1, -1)
    elif kind == 'ones':
        theirs[key.replace('weights', 'pos')] = table[None, None]
    else:
        table[:] = 1 / queries
        if kind == 'posneg':  # of two queries the second
            table[:, 0], table[:, 1] = 1, -1
    ours = mapping.build(case['module'], case['config'], weights | {key: table.view(1, 1, 9, -1)})
    same = mapping.build(case['module'], dict(case['config'], attn_scale=kind), theirs)
    with torch.no_grad():
        assert torch.equal(same(tensors['input'].float()), ours(tensors['input'].float()))
