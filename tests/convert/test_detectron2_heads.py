"""Heads of detectron2's R-CNNs: MMDetection's with their weights compute the same numbers.

``tools/dev/peer_heads.py`` writes the cases with detectron2's own heads.
"""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

from hybrid_mm.convert import convert, detect

CASES = (
    'mask-rcnn_r50_fpn',
    'mask-rcnn_r50_fpn_4conv1fc-ln',
    'cascade-mask-rcnn_r50_fpn_4conv1fc',
    'cascade-mask-rcnn_r50_fpn_4conv1fc-ln',
)
# what makes a file one of detectron2: the least of a network
NETWORK = {
    f'backbone.bottom_up.{key}.weight': torch.rand(*shape)
    for key, shape in (
        ('patch_embed.proj', (4, 3, 7, 7)),
        ('blocks.0.attn.qkv', (12, 4)),
        ('blocks.0.attn.pool_q', (4, 1, 3, 3)),
    )
}


def build(name, configs):
    """RPN and heads of a base config, narrow."""
    model = Config.fromfile(configs / f'_base_/models/{name}.py').model
    rpn, roi = model.rpn_head, model.roi_head
    rpn.update(in_channels=8, feat_channels=8)
    boxes = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    for head in boxes:
        head.update(in_channels=8, fc_out_channels=16, num_classes=5)
        if 'conv_out_channels' in head:
            head.conv_out_channels = 8
    roi.mask_roi_extractor.out_channels = 8
    roi.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=5)
    test = model.test_cfg
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = torch.nn.Module()
        model.rpn_head = MODELS.build({**rpn, 'test_cfg': test.rpn, 'train_cfg': None})
        model.roi_head = MODELS.build({**roi, 'test_cfg': test.rcnn, 'train_cfg': None})
    return revert_sync_batchnorm(model).eval()


def converted(heads, name):
    """Weights of a case under our names."""
    out = convert(NETWORK | heads.state('detectron2', name))
    return {key: value for key, value in out.items() if not key.startswith('backbone.')}


def boxes(heads, number):
    """Boxes of the cases."""
    corners = heads.drawn('boxes', (number, 2)) * 20 + 40
    return torch.cat([corners, corners + heads.drawn('sizes', (number, 2)) * 8 + 12], 1)


@pytest.mark.parametrize('name', CASES)
def test_numbers(name, heads, pytestconfig):
    model = build(name, pytestconfig.rootpath / 'configs')
    model.load_state_dict(converted(heads, name), strict=True)
    rpn, roi = model.rpn_head, model.roi_head
    with torch.no_grad():
        logits, deltas = rpn.forward_single(heads.drawn('map', (1, 8, 6, 5)))
        anchors = rpn.prior_generator.single_level_grid_priors((6, 5), 1, device='cpu')
        outputs = [logits, deltas, anchors]
        regions = heads.drawn('regions', (3, 8, 7, 7))
        for head in [roi.bbox_head] if name.startswith('mask') else roi.bbox_head:
            scores, moves = head(regions)
            outputs += [scores, head.bbox_coder.decode(boxes(heads, 3), moves)]
        masks = [roi.mask_head] if name.startswith('mask') else roi.mask_head
        outputs += [head(heads.drawn('masks', (2, 8, 14, 14))) for head in masks]
    expected = heads.case('detectron2', name)['outputs']
    assert len(outputs) == len(expected) + len(masks) - 1  # all of ours are the one of the file
    heads.check(outputs, expected + expected[-1:] * (len(masks) - 1))


def test_masks_of_stages_are_averaged(heads, pytestconfig):
    """So copies of one mask head give its masks."""
    name = 'cascade-mask-rcnn_r50_fpn_4conv1fc-ln'
    roi = build(name, pytestconfig.rootpath / 'configs').roi_head
    roi.load_state_dict(
        {
            key.removeprefix('roi_head.'): value
            for key, value in converted(heads, name).items()
            if key.startswith('roi_head.')
        }
    )
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
    maps = [heads.drawn(f'p{i}', (1, 8, 64 >> i, 64 >> i)) for i in (2, 3, 4, 5)]

    def masks(stages):
        roi.num_stages = stages
        instances = InstanceData(bboxes=boxes(heads, 2) * 0.5, labels=torch.tensor([0, 3]))
        return roi.predict_mask(maps, [meta], [instances])[0].masks

    assert masks(1).any()
    assert (masks(3) == masks(1)).all()


def test_constants_of_training_are_left_out(heads):
    name = 'cascade-mask-rcnn_r50_fpn_4conv1fc-ln'
    constants = {
        'pixel_mean': torch.ones(3, 1, 1),
        'pixel_std': torch.ones(3, 1, 1),
        'proposal_generator.anchor_generator.cell_anchors.0': torch.ones(3, 4),
        'roi_heads.box_predictor.2.fed_loss_cls_weights': torch.ones(5),
    }
    state = NETWORK | heads.state('detectron2', name)
    assert convert(state | constants).keys() == convert(state).keys()
    assert detect(convert(state)) is None


@pytest.mark.parametrize(
    'key',
    [
        'proposal_generator.rpn_head.x',
        'roi_heads.box_head.conv1.norm.x',
        'roi_heads.box_head.fc1.weights',
        'roi_heads.box_predictor.x.weight',
        'roi_heads.mask_head.mask_fcnx.weight',
    ],
)
def test_strangers_are_named(key, heads):
    state = NETWORK | heads.state('detectron2', CASES[1])
    with pytest.raises(ValueError, match=f"detectron2: do not know the key '{key}' "):
        convert(state | {key: torch.ones(2)})
