"""Networks are built from the names that MMPretrain has for their arguments, and are the same."""

import pytest
import torch

from hybrid_mm.backbones import PVT, VAN, HorNet, MViTv2, RepLKNet, SLaK, ViT

DW = dict(type='DW', kernel_size=7)
ORDERS = dict(depths=[1, 1, 2, 1], orders=[2, 3, 4, 5])
KERNELS = dict(small_kernel=5, dw_ratio=1)
PAIRS = {
    'van-name': (VAN, dict(arch='s'), dict(arch='small')),
    'van': (
        VAN,
        dict(arch=dict(embed_dims=[8, 8, 8, 8], depths=[1] * 4, ffn_ratios=[8, 8, 4, 4])),
        dict(arch=dict(embed_dims=[8, 8, 8, 8], depths=[1] * 4, mlp_ratios=[8, 8, 4, 4])),
    ),
    'hornet-name': (HorNet, dict(arch='l-gf384'), dict(arch='large-gf384')),
    'hornet': (
        HorNet,
        dict(
            arch=dict(base_dim=16, dw_cfg=[DW, DW, DW, dict(type='GF', h=7, w=4)], **ORDERS),
            gap_before_final_norm=True,
            use_layer_scale=False,
            out_indices=(3,),
        ),
        dict(
            arch=dict(
                dims=[16, 32, 64, 128], filter_sizes=[None, None, None, (7, 4)], **ORDERS
            ),
            pooled=True,
            layer_scale=0.0,
            out_indices=(3,),
        ),
    ),
    'slak': (SLaK, dict(layer_scale_init_value=1.0), dict(layer_scale=1.0)),
    'vit-name': (ViT, dict(arch='deit-b', out_type='featmap'), dict(arch='base')),
    'vit': (
        ViT,
        dict(
            arch=dict(embed_dims=8, num_layers=3, num_heads=2),
            with_cls_token=False, use_rel_pos=True, layer_scale_init_value=1.0, out_indices=(1, 2),
        ),
        dict(
            arch=dict(embed_dim=8, depths=[1] * 3, heads=2),
            class_token=False, relative=True, layer_scale=1.0, out_indices=(1, 2),
        ),
    ),
    'vit-plain': (ViT, dict(arch='b', layer_scale_init_value=0.0), dict(arch='base')),
    'mvitv2': (
        MViTv2,
        dict(
            arch=dict(embed_dims=8, num_heads=1, depths=[1, 1, 2]), out_scales=(1, 2),
            adaptive_kv_stride=2, rel_pos_spatial=False, residual_pooling=False,
            dim_mul_in_attention=False,
        ),
        dict(
            arch=dict(embed_dim=8, heads=1, depths=[1, 1, 2]), out_indices=(1, 2), kv_stride=2,
            relative=False, residual=False, dim_mul_in_att=False,
        ),
    ),
    'replknet': (
        RepLKNet,
        dict(
            arch=dict(
                large_kernel_sizes=[7] * 4, layers=[1] * 4, channels=[4, 8, 8, 16], **KERNELS
            ),
            small_kernel_merged=True,
            norm_intermediate_features=True,
        ),
        dict(
            arch=dict(kernel_sizes=[7] * 4, depths=[1] * 4, channels=[4, 8, 8, 16], **KERNELS),
            deploy=True,
            norm_outputs='all',
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', PAIRS)
def test_same_network(name):
    cls, theirs, ours = PAIRS[name]
    with torch.device('meta'):
        a, b = cls(**theirs), cls(**ours)
    assert a.arch == b.arch
    assert [(k, v.shape) for k, v in a.state_dict().items()] == [
        (k, v.shape) for k, v in b.state_dict().items()
    ]
    for setting in ('pooled', 'layer_scale', 'norm_outputs', 'deploy', 'residual', 'out_indices'):
        assert getattr(a, setting, None) == getattr(b, setting, None)


@pytest.mark.parametrize('cls, settings, message', [
    (HorNet, dict(pooled=True, gap_before_final_norm=True),
     'HorNet: gap_before_final_norm is another name of pooled: leave one out'),
    (VAN, dict(arch=dict(embed_dims=[8], depths=[1], ffn_ratios=[4], mlp_ratios=[4])),
     'arch of VAN: ffn_ratios is another name of mlp_ratios'),
    (HorNet, dict(arch=dict(base_dim=16, dw_cfg=[dict(DW, kernel_size=5)] * 4, **ORDERS)),
     "expected for each stage, got .*'kernel_size': 5"),
    (ViT, dict(out_type='raw'), 'ViT: out_type must be one of featmap, cls_token'),
    (SLaK, dict(gap_before_final_norm='yes'), 'pooled must be True or False'),
])  # fmt: skip
def test_errors(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings)


@pytest.mark.parametrize('cls, places, theirs, message', [
    (PVT, ('tiny',), dict(num_layers=[2] * 4), 'num_layers is another name of arch: leave one out'),
    (ViT, ('tiny', 16, 224, 224, None, None, (), True), dict(use_rel_pos=True),
     'use_rel_pos is another name of relative: leave one out'),
    (PVT, (), dict(num_layers=3), 'arch.depths of PVT: one entry per stage expected, got 3'),
    (ViT, (dict(embed_dims=8, num_layers='2', num_heads=1),), {}, 'arch.depths of ViT: one entry'),
])  # fmt: skip
def test_errors_of_arguments_by_place(cls, places, theirs, message):
    with pytest.raises(ValueError, match=message):
        cls(*places, **theirs)
