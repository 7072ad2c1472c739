"""Maps that a model gives, beside what its necks and heads are told of them."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.maps import check_maps

WIDTHS = {4: 8, 8: 16, 16: 24, 32: 32}


class Maps(nn.Module):
    """Backbone of maps of some strides."""

    def __init__(self, strides=(4, 8, 16, 32)):
        super().__init__()
        self.strides = strides
        self.drop = nn.Dropout(0.5)

    def forward(self, image):
        return tuple(
            self.drop(image.new_ones(1, WIDTHS[s], image.shape[2] // s, image.shape[3] // s))
            for s in self.strides
        )


class Network(nn.Module):
    """Parts of a detector or segmenter, with a tiny backbone."""

    def __init__(self, strides, parts, scope='mmdet'):
        super().__init__()
        self.backbone = Maps(strides)
        with DefaultScope.overwrite_default_scope(scope):
            for name, settings in parts.items():
                if 'num_levels' in settings:
                    part = nn.Sequential(MultiScaleDeformableAttention(8, 2, **settings))
                elif name == 'panoptic_head':
                    part = nn.Module()
                    part.pixel_decoder = nn.Module()
                else:
                    part = MODELS.build(settings)
                self.add_module(name, part)


def check(strides, scope='mmdet', **parts):
    model = Network(strides, ConfigDict(parts), scope)
    check_maps(SimpleNamespace(model=model, cfg=ConfigDict(model=parts)))


def fpn(*widths, **settings):
    return dict(type='FPN', in_channels=list(widths), out_channels=8, num_outs=5, **settings)


def retina(*strides):
    anchors = dict(
        type='AnchorGenerator',
        octave_base_scale=4,
        scales_per_octave=3,
        ratios=[1.0],
        strides=strides,
    )
    return dict(
        type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8, anchor_generator=anchors
    )


def yolo(*strides):
    anchors = dict(type='YOLOAnchorGenerator', base_sizes=[[(8, 8)]] * 3, strides=[32, 16, 8])
    return dict(type='YOLOV3Head', num_classes=2, in_channels=[32, 16, 8], out_channels=[8, 8, 8],
                anchor_generator=anchors, featmap_strides=list(strides))  # fmt: skip


def condinst(stride):
    feature = dict(in_channels=8, feat_channels=8, start_level=0, end_level=2, out_channels=8,
                   mask_stride=stride, num_stacked_convs=1)  # fmt: skip
    loss = dict(type='DiceLoss')
    return dict(type='CondInstMaskHead', mask_feature_head=feature, loss_mask=loss)


def extractor(*strides):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
        out_channels=8,
        featmap_strides=list(strides),
    )


def roi_head(*strides):
    head = dict(type='Shared2FCBBoxHead', in_channels=8, fc_out_channels=8, num_classes=2)
    return dict(type='StandardRoIHead', bbox_roi_extractor=extractor(*strides), bbox_head=head)


P3 = dict(start_level=1, add_extra_convs='on_input')
POINTS = dict(type='FCOSHead', num_classes=2, in_channels=8, feat_channels=8, norm_cfg=None)
SOLO = dict(type='SOLOHead', num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1,
            cls_down_index=0, norm_cfg=dict(type='BN'), num_grids=[4, 4, 4, 4, 4])  # fmt: skip
YOLO_NECK = dict(type='YOLOV3Neck', num_scales=3, in_channels=[32, 24, 16],
                 out_channels=[32, 16, 8])  # fmt: skip
ALL, WIDE = (4, 8, 16, 32), (8, 16, 24, 32)


@pytest.mark.filterwarnings('error:.*is deprecated')
def test_parts_that_fit():
    check(ALL, neck=fpn(*WIDE, **P3), bbox_head=retina(8, 16, 32, 64, 128))
    check(ALL, neck=fpn(*WIDE), roi_head=roi_head(4, 8, 16, 32))
    check((16,), bbox_head=dict(retina(16), in_channels=24))
    check((8, 16, 32), neck=YOLO_NECK, bbox_head=yolo(32, 16, 8))
    check(ALL, neck=fpn(*WIDE), mask_head=dict(SOLO, strides=[8, 8, 16, 32, 32]))
    check(ALL, neck=fpn(*WIDE), encoder=dict(num_levels=5))
    check(ALL, neck=fpn(*WIDE), mask_head=condinst(4))
    check(ALL, neck=fpn(*WIDE, **P3), bbox_head=dict(POINTS, strides=[8, 16, 32, 64, 128]))


@pytest.mark.parametrize(('strides', 'parts', 'message'), [
    # maps from stride 8 into a neck that leaves the first of them out
    ((8, 16, 32), dict(neck=fpn(16, 24, 32, **P3), bbox_head=retina(8, 16, 32, 64, 128)),
     r'bbox_head\.anchor_generator\.strides is \[8, 16, 32, 64, 128\], but model\.neck gives the '
     r'strides \[16, 32, 64, 128, 256\]'),
    (ALL, dict(neck=fpn(*WIDE), bbox_head=retina(8, 16, 32, 64, 128)),
     r'gives the strides \[4, 8, 16, 32, 64\]; use --cfg-options '
     r'model\.bbox_head\.anchor_generator\.strides=4,8,16,32,64, or other maps'),
    (ALL, dict(neck=fpn(*WIDE), bbox_head=retina(4, 8, 16, 32)),
     r'is \[4, 8, 16, 32\], but model\.neck gives 5 maps with the strides \[4, 8, 16, 32, 64\]'),
    (ALL, dict(neck=fpn(*WIDE, **P3),
               bbox_head=dict(POINTS, strides=[4, 8, 16, 32, 64])),
     r'model\.bbox_head\.strides is \[4, 8, 16, 32, 64\]'),
    (ALL, dict(neck=fpn(*WIDE, **P3), roi_head=roi_head(4, 8, 16, 32)),
     r'roi_head\.bbox_roi_extractor\.featmap_strides is \[4, 8, 16, 32\], but model\.neck gives '
     r'the strides \[8, 16, 32, 64\]'),
    ((8, 16, 32), dict(neck=fpn(*WIDE)),
     r'neck\.in_channels is \[8, 16, 24, 32\], but the backbone returns maps of \[16, 24, 32\] '
     r'channels \(strides \[8, 16, 32\]\); use --cfg-options model\.neck\.in_channels=16,24,32'),
    ((8, 16, 32), dict(neck=fpn(16, 32, 24)), r'in_channels=16,24,32, or other out_indices'),
    ((32,), dict(neck=fpn(24)), r'use --cfg-options model\.neck\.in_channels=\[32\],'),
    # what small images cannot tell apart but for a pixel
    (ALL, dict(neck=fpn(*WIDE, **P3), bbox_head=retina(8, 16, 32, 64, 64)), r'use .*,32,64,128,'),
    (ALL, dict(neck=fpn(*WIDE), roi_head=roi_head(4, 8, 16, 64)), r'strides=4,8,16,32,'),
    (ALL, dict(neck=fpn(*WIDE), mask_head=dict(SOLO, strides=[4, 8, 16, 32, 64])),
     r'model\.mask_head\.strides is .* the head after model\.neck gives .* \[8, 8, 16, 32, 32\]'),
    ((8, 16, 32), dict(neck=YOLO_NECK, bbox_head=yolo(8, 16, 32)),
     r'model\.bbox_head\.featmap_strides is \[8, 16, 32\], but .* the strides \[32, 16, 8\]'),
    (ALL, dict(neck=fpn(*WIDE, **P3), mask_head=condinst(4)),
     r'head\.mask_stride is 4, but model\.neck gives the strides \[8\]; .*\.mask_stride=8, or'),
    (ALL, dict(panoptic_head=dict(type='MaskFormerHead', in_channels=[8, 16, 32, 32])),
     r'panoptic_head\.in_channels is \[8, 16, 32, 32\], but .*_head\.in_channels=8,16,24,32, or'),
    (ALL, dict(neck=fpn(*WIDE), encoder=dict(num_levels=4)),
     r'attention of model\.encoder is for 4 maps .* gives 5 \(strides \[4, 8, 16, 32, 64\]\)'),
    (ALL, dict(neck=fpn(*WIDE), bbox_head=dict(retina(4, 8, 16, 32, 64), in_channels=16)),
     r'bbox_head\.in_channels is 16, but model\.neck gives maps of 8 channels'),
])  # fmt: skip
def test_detectors_that_do_not_fit(strides, parts, message):
    with pytest.raises(UserError, match=message):
        check(strides, **parts)


def segmenter(**settings):
    fixed = dict(channels=8, num_classes=2, norm_cfg=None)
    return dict(dict(type='FPNHead', in_channels=list(WIDE), in_index=[0, 1, 2, 3],
                     feature_strides=list(ALL)), **fixed, **settings)  # fmt: skip


def test_segmenters():
    check(ALL, 'mmseg', decode_head=segmenter())
    uper = dict(type='UPerHead', in_channels=list(WIDE), in_index=[0, 1, 2, 3], channels=8,
                num_classes=2)  # fmt: skip
    check(ALL, 'mmseg', decode_head=uper)
    for strides, head, message in (
        (ALL, segmenter() | dict(feature_strides=[8, 16, 32, 64]), r'feature_strides is \[8, 16'),
        ((8, 16, 32), uper, r'in_index is \[0, 1, 2, 3\], but model\.backbone gives 3 maps only'),
        (ALL, dict(uper, in_channels=[8, 16, 24, 24]), r'in_channels=8,16,24,32$'),
        (ALL, dict(type='FCNHead', in_channels=16, in_index=2, channels=8, num_classes=2),
         r'gives maps of 24 channels .* model\.decode_head\.in_channels=24$'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            check(strides, 'mmseg', decode_head=head)


def test_models_are_left_as_they_were():
    parts = ConfigDict(neck=fpn(*WIDE), bbox_head=retina(4, 8, 16, 32, 64))
    model = Network(ALL, parts)
    model.neck.eval()
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    check_maps(SimpleNamespace(model=model, cfg=ConfigDict(model=parts)))
    assert [m.training for m in model.modules()] == modes and True in modes and False in modes
    assert torch.equal(torch.get_rng_state(), state)


class Stateful(Maps):
    """Draws random numbers, counts in a buffer and in an attribute, and keeps its last map."""

    def __init__(self):
        super().__init__()
        self.register_buffer('seen', torch.zeros(1))
        self.register_buffer('last', None)
        self.steps, self.kept = 0, None

    def train(self, mode=True):
        self.steps += 10  # as layers that fold weights for evaluation
        return super().train(mode)

    def forward(self, image):
        self.seen += 1
        self.steps += 1
        self.kept = self.last = image + torch.rand(1) + random.random() + np.random.rand()
        return super().forward(image)


def test_modules_with_a_state_are_left_as_they_were():
    parts = ConfigDict(neck=fpn(*WIDE), bbox_head=retina(4, 8, 16, 32, 64))
    model = Network(ALL, parts)
    model.backbone = Stateful()
    states = random.getstate(), np.random.get_state()[2], model.backbone.seen
    check_maps(SimpleNamespace(model=model, cfg=ConfigDict(model=parts)))
    backbone = model.backbone
    assert backbone.seen is states[2] and backbone.seen.item() == 0
    assert backbone.last is None and backbone.kept is None and backbone.steps == 0
    assert (random.getstate(), np.random.get_state()[2]) == states[:2]
    # widths that are taken from the first image are not taken from ours
    model.backbone.layer = nn.LazyConv2d(8, 1)
    model.backbone.forward = pytest.fail
    check_maps(SimpleNamespace(model=model, cfg=ConfigDict(model=parts)))


def test_parts_of_users():
    """Their heads may use some of the maps, and their models may change them."""
    parts = ConfigDict(neck=fpn(*WIDE), bbox_head=retina(8, 16))
    cfg = SimpleNamespace(model=Network(ALL, parts), cfg=ConfigDict(model=parts))
    with pytest.raises(UserError, match='gives 5 maps'):
        check_maps(cfg)
    head = cfg.model.bbox_head
    head.__class__ = type('Own', (type(head),), dict(__module__='own'))
    check_maps(cfg)
    head.prior_generator.strides = [(8, 8), (32, 32)]
    with pytest.raises(UserError, match='gives 5 maps'):
        check_maps(cfg)
    cfg.model.__class__ = type('Model', (Network,), dict(__module__='own', extract_feat=strided))
    check_maps(cfg)


def strided(self, image):
    return self.neck(self.backbone(image))[1::2]


def test_what_cannot_be_measured_passes():
    model = Network(ALL, ConfigDict(bbox_head=retina(64)))
    model.backbone = nn.Linear(1, 1)
    cfg = ConfigDict(model=dict(bbox_head=retina(64)))
    check_maps(SimpleNamespace(model=model, cfg=cfg))
    check_maps(SimpleNamespace(model=dict(type='RetinaNet'), cfg=cfg))  # built later


def test_networks_within_wrappers():
    parts = dict(neck=fpn(*WIDE), bbox_head=retina(8, 16, 32, 64, 128))
    for wrap, settings, place in (
        ('module', dict(module=parts), 'model.module'),
        ('student', dict(detector=parts), 'model.detector'),
        ('detector', dict(detector=parts), 'model.detector'),
    ):
        outer = nn.Module()
        outer.add_module(wrap, Network(ALL, ConfigDict(parts)))
        with pytest.raises(UserError, match=f'^{place}.bbox_head.anchor_generator.strides is'):
            check_maps(SimpleNamespace(model=outer, cfg=ConfigDict(model=settings)))
