"""GCNet's files of MMDetection 1.x: class order, heads, offsets."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.convert import convert, detect

CLASSES = 5
GC = [dict(cfg=dict(type='ContextBlock', ratio=1 / 4), stages=(False, True, True, True),
           position='after_conv3')]  # fmt: skip


def detector(cascade, configs):
    """A small detector of MMDetection 3.x with every type of layer that the official files have."""
    name = 'cascade-mask-rcnn_r50_fpn' if cascade else 'mask-rcnn_r50_fpn'
    model = Config.fromfile(configs / f'_base_/models/{name}.py').model
    model.backbone.update(
        init_cfg=None,
        base_channels=8,
        plugins=GC,
        dcn=dict(type='DCN'),
        stage_with_dcn=(False, True, True, True),
    )
    model.neck.update(in_channels=[32, 64, 128, 256], out_channels=8, norm_cfg=dict(type='BN'))
    model.rpn_head.update(in_channels=8, feat_channels=8)
    roi, norm = model.roi_head, dict(type='BN')
    roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = 8
    for head in roi.bbox_head if cascade else [roi.bbox_head]:
        head.update(in_channels=8, fc_out_channels=8, num_classes=CLASSES)
        if not cascade:
            head.update(
                type='ConvFCBBoxHead',
                num_shared_convs=2,
                num_shared_fcs=1,
                conv_out_channels=8,
                norm_cfg=norm,
            )
    roi.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=CLASSES, norm_cfg=norm)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model)


def official(state):
    """The same weights as MMDetection 1.x wrote them, with noise for the background's channels."""
    old = {}
    for key, value in state.items():
        key = key.replace('conv2.conv_offset.', 'conv2_offset.')
        if key.startswith('roi_head.'):
            key = key[len('roi_head.') :]
        if '.fc_cls.' in key:  # the background, last in 3.x, came first
            value = value.roll(1, 0)
        elif '.fc_reg.' in key and len(value) > 4:
            value = torch.cat([torch.rand(4, *value.shape[1:]), value])
        elif '.conv_logits.' in key:
            value = torch.cat([torch.rand(1, *value.shape[1:]), value])
        old[key] = value
    return old


@pytest.fixture(scope='module', params=[False, True], ids=['mask-rcnn', 'cascade'])
def pair(request, pytestconfig):
    model = detector(request.param, pytestconfig.rootpath / 'configs')
    return model, official(model.state_dict())


def test_round_trip(pair):
    model, old = pair
    own = model.state_dict()
    assert 'backbone.layer2.0.conv2_offset.weight' in old
    assert old.keys() != own.keys()
    assert detect(old) == 'gcnet-mmdet1'
    new = convert(old)
    assert new.keys() == own.keys()
    assert all(torch.equal(new[k], own[k]) for k in own)
    model.load_state_dict(new, strict=True)


def test_converted_files_are_no_longer_old(pair):
    new = convert(pair[1])
    assert detect({k: v for k, v in new.items() if not k.startswith('backbone.')}) is None


def test_class_order(pair):
    """Scores of class c, 1 to 5 in the old layout after the background, are those of c - 1."""
    old, new = pair[1], convert(pair[1])
    name = next(k for k in old if k.endswith('fc_cls.weight'))
    x = torch.rand(old[name].shape[1])
    before, after = old[name] @ x, new[f'roi_head.{name}'] @ x
    assert torch.equal(after[:CLASSES], before[1:])
    assert after[CLASSES] == before[0]


def test_backbone_alone(pair):
    state = {k[9:]: v for k, v in pair[1].items() if k.startswith('backbone.')}
    pair[0].backbone.load_state_dict(convert(state), strict=True)


def test_unknown_keys_and_shapes_are_named(pair):
    old = pair[1]
    with pytest.raises(ValueError, match=r"gcnet-mmdet1: do not know the key 'semantic_head\.x'"):
        convert({**old, 'semantic_head.x': torch.zeros(1)})
    with pytest.raises(ValueError, match=r'conv_logits.weight has 9 rows; expected 1 .*5 classes'):
        convert({**old, 'mask_head.conv_logits.weight': torch.zeros(9, 8, 1, 1)})
    extra = {'bbox_head.7.fc_cls.weight': torch.zeros(3, 8)}
    with pytest.raises(ValueError, match=r'different numbers of classes: \[2, 5\]'):
        convert({**old, **extra})
    masks = {k: v for k, v in old.items() if 'bbox_head' not in k}
    with pytest.raises(ValueError, match='mask head without a box head'):
        convert(masks)
