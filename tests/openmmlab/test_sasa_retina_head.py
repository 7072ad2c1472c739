"""RetinaNet's head of attention: what replaces which layer, what it starts from."""

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import nn

from hybrid_mm.plugins import SASAConv2d

CHANNELS, LEVELS, CLASSES, ANCHORS = 16, 2, 3, 9


@pytest.fixture(scope='module')
def head():
    torch.manual_seed(0)
    made = ROOT.build(
        dict(
            type='hybrid_mm.SASARetinaHead',
            num_classes=CLASSES,
            num_ins=LEVELS,
            in_channels=CHANNELS,
            feat_channels=CHANNELS,
            stacked_convs=2,
            window=5,
            heads=4,
            norm_cfg=dict(type='BN'),
            anchor_generator=dict(
                type='mmdet.AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=3,
                ratios=[0.5, 1.0, 2.0],
                strides=[8, 16],
            ),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='mmdet.L1Loss'),
        )
    )
    made.init_weights()
    return made


def test_all_convolutions_of_3x3_are_attention(head):
    attention = [m for m in head.modules() if isinstance(m, SASAConv2d)]
    assert len(attention) == 2 * 2 + 2  # towers, which the levels share, and last layers
    assert {(m.kernel_size, m.heads, m.out_channels) for m in attention} == {(5, 4, CHANNELS)}
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.out_channels) for m in convs] == [
        ((1, 1), ANCHORS * CLASSES),
        ((1, 1), ANCHORS * 4),
    ]


def test_initial_values_are_those_of_the_appendix(head):
    attention = [m for m in head.modules() if isinstance(m, SASAConv2d)]
    values = torch.cat([m.value_conv.weight.flatten() for m in attention])
    queries = torch.cat([m.query_conv.weight.flatten() for m in attention])
    assert values.std().item() == pytest.approx(0.01, rel=0.1)
    assert queries.std().item() == pytest.approx((2 / CHANNELS) ** 0.5, rel=0.1)
    assert head.retina_cls.conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert head.retina_reg.conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    torch.testing.assert_close(
        head.retina_cls.conv.bias.sigmoid(), torch.full((ANCHORS * CLASSES,), 0.01)
    )
    assert not head.retina_reg.conv.bias.any()


def test_scores_boxes_and_gradients(head):
    maps = [torch.rand(2, CHANNELS, 9, 7), torch.rand(2, CHANNELS, 3, 2)]
    scores, boxes = head.train()(maps)
    assert [tuple(x.shape) for x in scores] == [(2, 27, 9, 7), (2, 27, 3, 2)]
    assert [tuple(x.shape) for x in boxes] == [(2, 36, 9, 7), (2, 36, 3, 2)]
    sum(x.square().sum() for x in (*scores, *boxes)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
