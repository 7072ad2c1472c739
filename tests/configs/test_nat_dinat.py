"""Configs of NAT and DiNAT: sizes, dilations, recipes, where weights come from."""

import re

import pytest
import torch
from mmengine.registry import MODELS as MMENGINE_MODELS

from .conftest import CONFIG_FILES, build, load, optimizer, reduced, relative, shallow
from .test_zoo import MODELS

OURS = [p for p in CONFIG_FILES if p.parent.name in ('nat', 'dinat')]
ISOTROPIC = [p for p in OURS if re.search('-iso-|vit-rpb', p.stem)]
# the papers print millions of parameters and 1e9 multiply-adds, at 1280 x 800
PUBLISHED = {
    'mask-rcnn_nat-mini_fpn_ms-crop-3x_coco': (40, 225),
    'mask-rcnn_nat-tiny_fpn_ms-crop-3x_coco': (48, 258),
    'mask-rcnn_nat-small_fpn_ms-crop-3x_coco': (70, 330),
    'mask-rcnn_dinat-s-tiny_fpn_ms-crop-3x_coco': (48, 263),
    'mask-rcnn_dinat-s-small_fpn_ms-crop-3x_coco': (69, 350),
    'cascade-mask-rcnn_nat-mini_fpn_4conv1fc-giou_ms-crop-3x_coco': (77, 704),
    'cascade-mask-rcnn_nat-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco': (85, 737),
    'cascade-mask-rcnn_nat-small_fpn_4conv1fc-giou_ms-crop-3x_coco': (108, 809),
    'cascade-mask-rcnn_nat-base_fpn_4conv1fc-giou_ms-crop-3x_coco': (147, 931),
    'cascade-mask-rcnn_dinat-large_fpn_4conv1fc-giou_ms-crop-3x_coco': (258, 1276),
    'cascade-mask-rcnn_dinat-s-large_fpn_4conv1fc-giou_ms-crop-3x_coco': (253, 1357),
    'nat-iso-small_8xb128_in1k': (22, 4.3),
    'dinat-iso-base_8xb128_in1k': (86, 16.9),
    'vit-rpb-small_8xb128_in1k': (22, 4.6),
    'vit-rpb-base_8xb128_in1k': (86, 17.5),
}
RATES = {
    'base': {'cascade-mask-rcnn_dinat': 7.5e-5},
    'large': {
        'cascade-mask-rcnn_dinat-s': 5e-5,
        'cascade-mask-rcnn_dinat': 7.5e-5,
        'mask2former': 1e-4,
    },
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_sizes(name):
    found = MODELS[name]['Metadata']
    params, macs = PUBLISHED[name]
    assert found['Parameters'] / 1e6 == pytest.approx(params, abs=0.8)
    # the padding of small maps and the products of bias and heads count differently there
    assert found['FLOPs'] / 1e9 == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize('path', [p for p in OURS if p not in ISOTROPIC], ids=relative)
def test_variant_weights_and_dilations(path):
    cfg, name = load(path), path.stem
    backbone = cfg.model.backbone
    family, variant = re.search('(dinat-s|dinat|nat)-(mini|tiny|small|base|large)', name).groups()
    networks = {'nat': 'NAT', 'dinat': 'DiNAT', 'dinat-s': 'DiNATs'}
    assert backbone.type == f'hybrid_mm.{networks[family]}'
    assert backbone.arch == variant
    weights = f'hybrid_mm://{family}-{variant}_{"in22k" if variant == "large" else "in1k"}'
    if 'init_cfg' in backbone:
        assert backbone.init_cfg.checkpoint == weights
    else:
        assert name.endswith('8xb128_in1k')
    expected = 'in1k'
    if name.startswith('mask2former'):
        expected = 'mask2former'
    elif 'coco' in name:
        expected = 'coco'
    elif 'ade20k' in name:
        expected = 'ade20k-640' if variant == 'large' else 'ade20k'
    elif name.endswith('384') and 'k11' not in name:
        expected = 'in1k-384'
    assert backbone.get('dilations', 'in1k') == ('in1k' if family == 'nat' else expected)
    rate = cfg.optim_wrapper.optimizer.lr
    for start, special in RATES.get(variant, {}).items():
        if name.startswith(start):
            assert rate == special
            return
    default = {'mmdet': 1e-4, 'mmseg': 6e-5, 'mmpretrain': 5e-5 if '30e' in name else 1e-3}
    assert rate == default[cfg.default_scope]


@pytest.mark.parametrize(
    'name, spared',
    [
        ('mask-rcnn_nat-mini', r'norm|\.relative_bias$'),
        ('dinat-mini_upernet', r'norm|\.relative_bias$'),
        # timm does not read no_weight_decay_keywords(): tables decay
        ('dinat-mini_8xb128', r'norm|\.bias$'),
        # tables decay: Mask2Former spares those of Swin by their name
        ('mask2former_dinat-large-k11_8xb2-160k', r'norm|\.gn\.|query|level_embed'),
    ],
)
def test_what_decays(name, spared):
    """No norm decays; in dense networks, biases do. Mask2Former trains backbones slowly."""
    cfg = reduced(next(p for p in OURS if p.stem.startswith(name)))
    shallow(cfg)
    model = build(cfg)
    groups = optimizer(cfg, model).optimizer.param_groups
    options = {
        id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']
    }
    rate, full = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay
    seen = set()
    for key, p in model.named_parameters():
        match = re.search(spared, key)
        slow = 0.1 if name.startswith('mask2former') and key.startswith('backbone.') else 1.0
        assert options[id(p)] == (pytest.approx(rate * slow), 0.0 if match else full), key
        seen.add(match and match[0])
    assert {None, 'norm'} < seen
    for key in cfg.optim_wrapper.paramwise_cfg.get('custom_keys', {}):
        assert any(key in parameter for parameter, _ in model.named_parameters()), key


@pytest.mark.parametrize('path', OURS, ids=relative)
def test_mixed_precision(path):
    """But in DiNAT-Large, Mask2Former and the fine-tuning of both large networks."""
    name = path.stem
    single = re.search('dinat-large|30e_in1k', name)
    wrapper = load(path).optim_wrapper
    assert wrapper.type == ('OptimWrapper' if single else 'AmpOptimWrapper')
    assert wrapper.get('loss_scale') == (None if single else 'dynamic')


def test_schedules():
    def of(stem):
        return load(next(p for p in OURS if p.stem == stem))

    cfg = of('cascade-mask-rcnn_dinat-s-small_fpn_4conv1fc-giou_ms-crop-3x_coco')
    warm, steps = cfg.param_scheduler
    assert (warm.end, steps.milestones, cfg.train_cfg.max_epochs) == (500, [27, 33], 36)
    cfg = of('dinat-base_8xb128_in1k')
    warm, cosine = cfg.param_scheduler
    assert (cfg.train_cfg.max_epochs, warm.end, cosine.end, cosine.eta_min) == (310, 20, 300, 5e-6)
    cfg = of('dinat-large-k11_8xb64-30e_in1k-384')
    assert cfg.model.backbone.kernel_size == 11
    assert cfg.model.train_cfg is None
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-10
    assert cfg.val_dataloader.dataset.pipeline[1].scale == 384
    cfg = of('dinat-large_upernet_8xb2-160k_ade20k-640x640')
    assert tuple(cfg.model.data_preprocessor.size) == (640, 640)
    for task in ('coco-panoptic', 'coco'):
        cfg = of(f'mask2former_dinat-large-k11_8xb2-lsj-100e_{task}')
        assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == 737_500
        assert cfg.model.panoptic_head.num_queries == 200
        assert cfg.model.panoptic_fusion_head.num_stuff_classes == 53 * ('panoptic' in task)
    cfg = of('mask2former_dinat-large-k11_8xb2-160k_ade20k-640x640')
    (poly,) = cfg.param_scheduler
    assert cfg.train_cfg.max_iters == poly.end == 160_000
    assert cfg.model.decode_head.num_queries == 100
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [tuple(s) for s in pipeline[2].scales] == [(2560, s) for s in range(320, 1281, 64)]
    assert pipeline[3].cat_max_ratio == 1


@pytest.mark.parametrize('path', ISOTROPIC, ids=relative)
def test_isotropic(path):
    """Tokens of 16 pixels; every second window is dilated, or attention is global."""
    cfg = load(path)
    if 'small' in path.stem:
        model = MMENGINE_MODELS.build({**cfg.model.backbone, '_scope_': 'mmpretrain'})
        assert model(torch.rand(1, 3, 224, 224))[0].shape == (1, 384, 14, 14)
        if 'vit' in path.stem:
            assert all(block.attn.window_size == 14 for block in model.stages[0].blocks)
        else:
            assert model.dilations == [[1, 2] * 6 if 'dinat' in path.stem else [1] * 12]
    averaged = 'EMAHook' in str(cfg.get('custom_hooks'))
    assert (cfg.param_scheduler[0].end, averaged) == (
        (50, True) if 'base' in path.stem else (20, False)
    )
