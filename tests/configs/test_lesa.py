"""Configs of LESA: recipes, the hybrid task cascade, where weights come from."""

from .conftest import CONFIG_FILES, load, strip_weights
from .test_zoo import MODELS

OURS = {p.stem: p for p in CONFIG_FILES if p.parent.name == 'lesa'}


def test_sizes():
    found = {name: MODELS[name]['Metadata']['Parameters'] for name in OURS}
    assert found['lesa-r50_4xb32-95e_in1k'] == 23_777_512
    assert found['lesa-r50-axial_4xb32-95e_in1k'] == 23_505_992
    assert found['lesa-wrn50_4xb32-95e_in1k'] == 61_145_896
    assert found['lesa-wrn50-axial_4xb32-95e_in1k'] == 60_602_984
    assert found['mask-rcnn_lesa-r50_fpn_8xb1-20e_coco'] == 42_953_146


def test_recipes():
    mask = load(OURS['mask-rcnn_lesa-r50_fpn_8xb1-20e_coco'])
    htc = load(OURS['htc_lesa-wrn50_fpn_4xb1-20e_coco'])
    for cfg, side, rate in ((mask, 1024, 0.01), (htc, 1280, 0.005)):
        assert cfg.model.backbone.canvas_size == (side, side)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            steps = [s for s in loader.dataset.pipeline if s.type == 'Resize']
            assert [(tuple(s.scale), s.keep_ratio) for s in steps] == [((side, side), False)]
        warm, steps = cfg.param_scheduler
        assert (warm.end, steps.end, steps.milestones) == (500, 20, [16, 19])
        assert cfg.optim_wrapper.optimizer.lr == rate
        assert cfg.model.backbone.deformable == (False, True, True, True)
    assert htc.train_dataloader.dataset.pipeline[1].with_seg
    assert htc.train_dataloader.dataset.data_prefix.seg == 'stuffthingmaps/train2017/'
    assert mask.model.backbone.init_cfg.checkpoint == 'hybrid_mm://lesa-r50-axial_in1k'
    assert htc.model.backbone.init_cfg.checkpoint == 'hybrid_mm://lesa-wrn50-axial_in1k'
    cls = load(OURS['lesa-wrn50_4xb32-95e_in1k'])
    warm, cosine = cls.param_scheduler
    assert (cls.train_cfg.max_epochs, warm.end, cosine.end) == (95, 5, 95)
    assert cls.optim_wrapper.optimizer.nesterov
    assert cls.model.head.loss == dict(type='CrossEntropyLoss', loss_weight=1.0)


def test_cascade_is_that_of_mmdetection():
    """Our base of HTC against MMDetection's file, key by key."""
    from mmengine.config import Config
    from mmengine.hub import get_config

    theirs = get_config('mmdet::htc/htc_r50_fpn_1x_coco.py')
    path = next(iter(OURS.values())).parents[1] / '_base_/models/htc_r50_fpn.py'
    ours = Config.fromfile(path)
    for cfg in (ours, theirs):
        strip_weights(cfg.model)
    for head in theirs.model.roi_head.mask_head:
        head.setdefault('with_conv_res', True)  # the default of HTCMaskHead
    assert ours.model.roi_head.to_dict() == theirs.model.roi_head.to_dict()
    assert ours.model.test_cfg.to_dict() == theirs.model.test_cfg.to_dict()
    assert ours.model.rpn_head.to_dict() == theirs.model.rpn_head.to_dict()
