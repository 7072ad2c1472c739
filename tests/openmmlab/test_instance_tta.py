"""hybrid_mm.InstanceTTAModel: boxes and masks of augmented images."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from hybrid_mm.openmmlab.instance_tta import flip_boxes, flip_maps

ROOT = Path(__file__).resolve().parents[2]
TTA = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
BACKBONE = dict(
    type='hybrid_mm.VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)
)
BASES = {'standard': 'mask-rcnn_r50_fpn', 'cascade': 'cascade-mask-rcnn_r50_fpn',
         'htc': 'htc_r50_fpn'}  # fmt: skip


def detector(name):
    """A small random detector whose scores differ."""
    init_default_scope('mmdet')
    model = Config.fromfile(ROOT / f'configs/_base_/models/{BASES[name]}.py').model
    model.backbone = ConfigDict(BACKBONE)
    model.neck.in_channels = [8, 8, 16, 16]
    model.test_cfg.rpn.update(nms_pre=20, max_per_img=8)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=4)
    torch.manual_seed(0)
    built = MODELS.build(model).eval()
    heads = built.roi_head.bbox_head
    for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        head.fc_cls.weight.data *= 30
    masks = built.roi_head.mask_head
    for head in masks if isinstance(masks, torch.nn.ModuleList) else [masks]:
        head.conv_logits.weight.data *= 30
    return built


@pytest.fixture(
    params=['standard', 'cascade', pytest.param('htc', marks=pytest.mark.slow)], scope='module'
)
def model(request):
    return detector(request.param)


def wrap(model):
    return MODELS.build(
        dict(type='hybrid_mm.InstanceTTAModel', tta_cfg=ConfigDict(TTA), module=model)
    )


def views(images, augmentations):
    """What pseudo_collate makes of TestTimeAug: scale and flip directions of 64 x 96 images."""
    data = dict(inputs=[], data_samples=[])
    for scale, direction in augmentations:
        inputs, samples = [], []
        for image in images:
            size = [round(n * scale) for n in image.shape[1:]]
            x = torch.nn.functional.interpolate(image[None], size=size, mode='bilinear')[0]
            axes = {None: [], 'horizontal': [2], 'vertical': [1], 'diagonal': [1, 2]}[direction]
            meta = dict(
                ori_shape=tuple(image.shape[1:]),
                img_shape=tuple(size),
                flip=bool(axes),
                scale_factor=(scale, scale),
                flip_direction=direction,
            )
            inputs.append(x.flip(axes))
            samples.append(DetDataSample(metainfo=meta))
        data['inputs'].append(inputs)
        data['data_samples'].append(samples)
    return data


@pytest.fixture(scope='module')
def images():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 3, 8, 12, generator=generator) * 255
    return torch.nn.functional.interpolate(low, size=(64, 96), mode='bicubic')


@torch.no_grad()
def run(model, data):
    return [sample.pred_instances for sample in model.test_step(data)]


def test_one_view_is_what_the_detector_predicts(model, images):
    data = views(images, [(1.0, None)])
    single = dict(inputs=data['inputs'][0], data_samples=data['data_samples'][0])
    plain = run(model, copy.deepcopy(single))
    for found, expected in zip(run(wrap(model), data), plain, strict=True):
        # its own suppression of the same threshold drops none
        assert len(found) == len(expected) == 4
        torch.testing.assert_close(found.bboxes, expected.bboxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.scores, expected.scores)
        assert torch.equal(found.labels, expected.labels)
        assert (found.masks != expected.masks).float().mean() < 1e-3


def test_a_flipped_image_gives_flipped_results(model, images, direction='diagonal'):
    """The views of an image and of its mirror are the same, in another order."""
    augmentations = [(1.0, None), (1.0, direction)]
    axes = [1, 2]
    tta = wrap(model)
    mirrored = torch.stack([image.flip(axes) for image in images])
    for a, b in zip(
        run(tta, views(images, augmentations)),
        run(tta, views(mirrored, augmentations)),
        strict=True,
    ):
        assert len(a) == len(b) > 0
        assert a.masks.shape == (len(a), 64, 96)
        assert 0 < a.masks.float().mean() < 1
        meta = dict(flip=True, flip_direction=direction, img_shape=(64, 96), scale_factor=(1, 1))
        back = flip_boxes(b.bboxes, meta)
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(a.bboxes, back, atol=0.01, rtol=0)
        assert (a.masks != b.masks.flip(axes)).float().mean() < 0.01


def test_masks_are_averages_of_all_views():
    """Against the formula, for a head whose probabilities are given."""
    tta = wrap(detector('standard'))
    probabilities = [torch.rand(1, 80, 28, 28) for _ in range(3)]
    maps, tables = [], {}
    for probability in probabilities:
        maps.append([torch.rand(1, 4, 8, 8)])
        tables[maps[-1][0]] = probability
    tta._logits = lambda head, x, rois: [torch.logit(tables[x[0]])]
    flips = (None, 'horizontal', 'diagonal')
    metas = [
        dict(
            ori_shape=(28, 28),
            img_shape=(28, 28),
            scale_factor=(1, 1),
            flip=bool(f),
            flip_direction=f,
        )
        for f in flips
    ]
    found = InstanceData(bboxes=torch.tensor([[0.0, 0, 28, 28]]), labels=torch.tensor([7]))
    a, b, c = (p[0, 7] for p in probabilities)
    expected = (a + b.flip(1) + c.flip(0, 1)) / 3 >= 0.5
    masks = tta._masks(found, maps, metas)
    assert torch.equal(masks[0], expected)
    torch.testing.assert_close(
        flip_maps(flip_maps(probabilities[0], metas[1]), metas[1]), probabilities[0]
    )


def test_stages_of_a_cascade_are_averaged_as_probabilities():
    tta = wrap(detector('standard'))
    stages = [torch.randn(1, 80, 28, 28) * 6 for _ in range(3)]
    tta._logits = lambda head, x, rois: stages
    meta = dict(ori_shape=(28, 28), img_shape=(28, 28), scale_factor=(1, 1), flip=False)
    found = InstanceData(bboxes=torch.tensor([[0.0, 0, 28, 28]]), labels=torch.tensor([11]))
    expected = sum(stage[0, 11].sigmoid() for stage in stages) / 3 >= 0.5
    wrong = sum(stage[0, 11] for stage in stages) / 3 >= 0
    assert (expected != wrong).float().mean() > 0.05
    assert torch.equal(tta._masks(found, [[None]], [meta])[0], expected)


def test_regions_in_the_augmented_images():
    """Boxes of the original image times the scale of each side, flipped within the image."""
    tta, rois = wrap(detector('standard')), []

    def logits(head, x, regions):
        rois.append(regions)
        return [torch.zeros(len(regions), 80, 28, 28)]

    tta._logits = logits
    boxes = torch.tensor([[10.0, 5, 30, 45], [0, 0, 8, 4]])
    found = InstanceData(bboxes=boxes, labels=torch.tensor([1, 2]))
    metas = [
        dict(ori_shape=(50, 80), img_shape=(100, 40), scale_factor=(0.5, 2.0), flip=False),
        dict(
            ori_shape=(50, 80),
            img_shape=(100, 40),
            scale_factor=(0.5, 2.0),
            flip=True,
            flip_direction='horizontal',
        ),
        dict(
            ori_shape=(50, 80),
            img_shape=(150, 80),
            scale_factor=(1.0, 3.0),
            flip=True,
            flip_direction='vertical',
        ),
    ]
    assert tta._masks(found, [[None]] * 3, metas).shape == (2, 50, 80)
    for regions, expected in zip(
        rois,
        (
            [[0, 5, 10, 15, 90], [0, 0, 0, 4, 8]],
            [[0, 25, 10, 35, 90], [0, 36, 0, 40, 8]],
            [[0, 10, 15, 30, 135], [0, 0, 138, 8, 150]],
        ),
        strict=True,
    ):
        torch.testing.assert_close(regions, torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(found.bboxes, boxes)


def test_boxes_that_survive_the_suppression():
    """Of two views: the best of those that overlap by half, of each class, at most max_per_img."""
    tta = wrap(detector('standard'))
    size = dict(img_shape=(100, 200), scale_factor=(1.0, 1.0))
    plain, flipped = dict(size, flip=False), dict(size, flip=True, flip_direction='horizontal')

    def view(boxes, scores, labels):
        return InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            scores=torch.tensor(scores),
            labels=torch.tensor(labels),
        )

    views = [
        view([[0, 0, 40, 40], [100, 50, 120, 60]], [0.5, 0.25], [3, 4]),
        view([[160, 0, 200, 38], [160, 0, 200, 40], [10, 10, 30, 30]], [0.75, 0.4, 0.3], [3, 5, 3]),
    ]
    expected = [
        ([0, 0, 40, 38], 0.75, 3),
        ([0, 0, 40, 40], 0.4, 5),
        ([170, 10, 190, 30], 0.3, 3),
        ([100, 50, 120, 60], 0.25, 4),
    ]
    for number in (100, 4, 3, 1):
        tta.tta_cfg['max_per_img'] = number
        found = tta._merge(views, [plain, flipped])
        rows = zip(found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        assert [(b, pytest.approx(s), n) for b, s, n in rows] == expected[:number]
    tta.tta_cfg['max_per_img'] = 100


def test_scales_do_not_move_the_boxes(images):
    tta, seen = wrap(detector('standard')), {}

    def boxes(x, samples):
        meta = samples[0].metainfo
        seen[meta['scale_factor']] = meta['img_shape']
        box = flip_boxes(torch.tensor([[8.0, 10, 40, 50]]), meta)
        found = InstanceData(bboxes=box, scores=torch.rand(1), labels=torch.tensor([3]))
        return [found] * len(samples)

    tta._boxes = boxes
    augmentations = [(s, f) for s in (0.5, 1.0, 1.5) for f in (None, 'horizontal')]
    for found in run(tta, views(images, augmentations)):
        torch.testing.assert_close(found.bboxes, torch.tensor([[8.0, 10, 40, 50]]))
        assert found.masks.shape == (1, 64, 96)
    assert seen == {(0.5, 0.5): (32, 48), (1.0, 1.0): (64, 96), (1.5, 1.5): (96, 144)}


def test_nothing_found(images):
    model = detector('standard')
    model.roi_head.test_cfg.score_thr = 2.0
    for found in run(wrap(model), views(images, [(1.0, None), (1.0, 'horizontal')])):
        assert len(found) == 0
        assert found.masks.shape == (0, 64, 96)


def test_heads_that_do_more_are_refused():
    model = detector('standard')
    model.roi_head.__class__ = type(
        'OtherHead', (type(model.roi_head),), dict(predict_mask=lambda *args: None)
    )
    with pytest.raises(ValueError, match='masks of OtherHead cannot be augmented'):
        wrap(model)


def test_flipped_boxes_of_a_padded_image():
    """Padding lies on the other side after the flip."""
    meta = dict(flip=True, flip_direction='horizontal', img_shape=(64, 128), scale_factor=(2, 2))
    box = torch.tensor([[5.0, 6, 20, 30]])
    np.testing.assert_allclose(flip_boxes(box, meta), [[44, 6, 59, 30]])
