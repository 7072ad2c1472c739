"""Configs of ResNet and PVT with ACmix, and of PVT: sizes, recipes, where weights come from."""

import re

import pytest

from .conftest import CONFIG_FILES, build, load, optimizer, reduced, relative
from .test_zoo import MODELS

OURS = [
    p for p in CONFIG_FILES if p.parent.name == 'acmix' and re.search('pvt-|r[0-9]+-acmix', p.stem)
]
# counted on the authors' code, with the stock heads
PARAMETERS = {
    'retinanet_pvt-{}_fpn_1x_coco': (22_964_724, 34_221_300, 53_943_540, 71_104_756),
    'pvt-{}_fpn_8xb4-40k_ade20k-512x512': (16_981_398, 28_237_974, 47_960_214, 65_121_430),
    'pvt-{}_8xb128-300e_in1k': (13_229_288, 24_485_864, 44_208_104, 61_369_320),
}


@pytest.mark.parametrize('name', PARAMETERS)
def test_sizes(name):
    found = tuple(MODELS[name.format(size)]['Metadata']['Parameters'] for size in 'tsml')
    assert found == PARAMETERS[name]


def test_sizes_with_acmix():
    found = {name: model['Metadata']['Parameters'] for name, model in MODELS.items()}
    assert found['retinanet_r50-acmix_fpn_1x_coco'] == 30_745_636
    assert found['r26-acmix_8xb16-90e_in1k'] == 10_487_816
    for size, extra in (('t', 166_840), ('s', 338_891)):
        for name in PARAMETERS:
            plain = found[name.format(size)]
            assert found[name.format(f'{size}-acmix')] == plain + extra


@pytest.mark.parametrize('path', OURS, ids=relative)
def test_variant_weights_and_drop_path(path):
    cfg = load(path)
    backbone = cfg.model.backbone
    name = re.search(r'(pvt-[tsml]|r\d+)(-acmix)?', path.stem)
    if name[1].startswith('r'):
        assert (backbone.type, backbone.arch) == ('hybrid_mm.ACmixResNet', name[1])
    else:
        size = dict(t='tiny', s='small', m='medium', l='large')[name[1][-1]]
        assert (backbone.type, backbone.arch) == ('hybrid_mm.PVT', size)
        assert backbone.get('acmix', False) == bool(name[2])
        large = size in ('medium', 'large')
        rates = {'mmpretrain': (0.1, 0.3), 'mmdet': (0.1, 0.0), 'mmseg': (0.1, 0.1)}
        assert backbone.drop_path_rate == rates[cfg.default_scope][large]
    if cfg.default_scope == 'mmpretrain':
        assert backbone.out_indices == (3,)
        assert backbone.get('class_token', False) == ('pvt' in path.stem)
    else:
        assert backbone.init_cfg.checkpoint == f'hybrid_mm://{name[0]}_in1k'


@pytest.mark.parametrize(
    ('name', 'decay', 'spared'),
    [
        ('retinanet_pvt-t_fpn_1x_coco', 0.0001, r'(?!)'),
        ('retinanet_pvt-t-acmix_fpn_1x_coco', 0.0001, r'\.attn\.rate[12]$'),
        ('pvt-s-acmix_8xb128-300e_in1k', 0.05, r'\.class_token$|\.attn\.rate[12]$'),
        ('r26-acmix_8xb16-90e_in1k', 0.0001, r'(?!)'),
    ],
)
def test_what_decays(name, decay, spared):
    """PVT's dense networks let everything decay but the rates of ACmix."""
    cfg = reduced(next(p for p in OURS if p.stem == name))
    model = build(cfg)
    groups = optimizer(cfg, model).optimizer.param_groups
    found = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    seen = 0
    for key, p in model.named_parameters():
        vector = 'pvt' in name and cfg.default_scope == 'mmpretrain' and p.ndim == 1
        match = re.search(spared, key)
        seen += bool(match)
        assert found[id(p)] == (0.0 if match or vector else decay), key
    assert bool(seen) == (spared != r'(?!)')


def test_schedules():
    cfg = load(next(p for p in OURS if p.stem == 'retinanet_pvt-s_fpn_1x_coco'))
    assert cfg.param_scheduler[0].end == 500
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.type) == (1e-4, 'AdamW')
    cfg = load(next(p for p in OURS if p.stem == 'mask-rcnn_pvt-l_fpn_8xb1-1x_coco'))
    assert cfg.optim_wrapper.optimizer.lr == 2e-4 / 1.4
    small, large = (
        load(next(p for p in OURS if p.stem == f'pvt-{size}_8xb128-300e_in1k')) for size in 'sl'
    )
    assert small.optim_wrapper.clip_grad is None
    assert large.optim_wrapper.clip_grad.max_norm == 1.0
    warm, cosine = small.param_scheduler
    assert (warm.end, cosine.begin, cosine.end, cosine.eta_min) == (
        6,
        0,
        300,
        1e-5,
    )  # MMEngine's warm-up ends a step early
    cfg = load(next(p for p in OURS if p.stem == 'r38-acmix_8xb16-90e_in1k'))
    smooth = cfg.model.head.loss.label_smooth_val
    assert smooth * (1 - 1 / 1000) == pytest.approx(0.1)  # mass of the 999 other classes
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 128
