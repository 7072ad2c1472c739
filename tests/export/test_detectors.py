"""End-to-end detectors: what MMDetection finds, from the module and from the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from hybrid_mm.export import onnx_files
from hybrid_mm.export.detections import same_detections
from hybrid_mm.export.graphs import ExportError
from hybrid_mm.export.random_weights import vary_outputs
from hybrid_mm.export.whole import whole_graph

ROOT = Path(__file__).resolve().parents[2]
HEADS = {
    'RetinaNet': ('retinanet_r50_fpn', {}),
    'FCOS': ('fcos_r50_fpn', {}),
    'ATSS': ('atss_r50_fpn', {}),
    'GFL': ('gfl_r50_fpn', {}),
    'softmax': ('retinanet_r50_fpn', {'bbox_head.loss_cls': dict(_delete_=True,
                                                                 type='CrossEntropyLoss')}),
    'Mask R-CNN': ('mask-rcnn_r50_fpn', {}),
    'agnostic': ('mask-rcnn_r50_fpn', {'roi_head.bbox_head.reg_class_agnostic': True,
                                       'roi_head.mask_head.class_agnostic': True,
                                       'test_cfg.rcnn.nms.class_agnostic': True}),
    'Faster R-CNN': ('mask-rcnn_r50_fpn', {'roi_head.mask_head': None}),
    'Cascade Mask R-CNN': ('cascade-mask-rcnn_r50_fpn', {}),
    'specific cascade': ('cascade-mask-rcnn_r50_fpn', {'specific': True}),
    'HTC': ('htc_r50_fpn', {}),
    'HTC without semantics': ('htc_r50_fpn', {'roi_head.semantic_head': None,
                                              'roi_head.semantic_roi_extractor': None}),
}  # fmt: skip


@MODELS.register_module()
class FourConvolutions(nn.Module):
    """A backbone that is traced at once: networks have tests of their own."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(a, b, s + 1, s, 1) for a, b, s in
                  ((3, 8, 4), (8, 8, 2), (8, 16, 2), (16, 16, 2))]  # fmt: skip
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        maps = []
        for layer in self.layers:
            x = layer(x).relu()
            maps.append(x)
        return tuple(maps)


def narrow(node):
    """Make heads of a config narrow, in place."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, dict | list):
            narrow(value)
        elif isinstance(key, str) and key.endswith('channels') and value in (256, 1024):
            node[key] = 32  # group norms have 32 groups
        elif key == 'num_classes':
            node[key] = {80: 5, 183: 7}[value]
        elif key in ('num_convs', 'stacked_convs'):
            node[key] = 1
        elif key == 'nms_pre':
            node[key] = 200
        elif key == 'max_per_img':
            node[key] = 60 if value == 1000 else 30


def detector(head):
    name, changes = HEADS[head]
    init_default_scope('mmdet')
    config = Config.fromfile(ROOT / f'configs/_base_/models/{name}.py')
    changes = {f'model.{key}': value for key, value in changes.items()}
    specific = changes.pop('model.specific', False)
    config.merge_from_dict(changes)
    cfg = config.model
    narrow(cfg)
    cfg.backbone, cfg.neck.in_channels = dict(type='FourConvolutions'), [8, 8, 16, 16]
    if specific:
        for stage in cfg.roi_head.bbox_head:
            stage.reg_class_agnostic = False
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 8  # it refuses maps of one place with a channel per group
    return vary_outputs(model)


def images(number, height, width):
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (number, height, width, 3), generator=generator).to(torch.uint8)


def by_mmdetection(model, batch):
    """Results of images (N, H, W, 3) by MMDetection."""
    from mmdet.structures import DetDataSample

    size = tuple(batch.shape[1:3])
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=dict(meta)) for _ in batch]
    inputs = [image.permute(2, 0, 1).flip(0) for image in batch]  # read as blue, green, red
    with torch.no_grad():
        return [
            x.pred_instances for x in model.test_step(dict(inputs=inputs, data_samples=samples))
        ]


def pasted(masks, boxes, size):
    """Masks (n, H, W) of probabilities within boxes, as MMDetection pastes them."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    return _do_paste_mask(masks[:, None], boxes, *size, skip_empty=False)[0] >= 0.5


def compare(model, found, batch, most=30):
    """Check results by name against MMDetection's; the number of objects."""
    total = 0
    for i, wanted in enumerate(by_mmdetection(model, batch)):
        one = {name: values[i : i + 1] for name, values in found.items()}
        keys = dict(boxes='bboxes', scores='scores', labels='labels')
        expected = {name: wanted[key][None] for name, key in keys.items()}
        plain = {name: one[name] for name in keys}
        assert same_detections(expected, plain, max(batch.shape[1:3])) < 1e-4
        there = one['scores'][0] > 0
        assert there.sum() == len(wanted)
        assert (one['labels'][0][~there] == -1).all()
        assert (one['scores'][0].diff() <= 0).all()
        if 'masks' in found and len(wanted):
            assert one['masks'].shape[2:] == (28, 28)
            masks = pasted(one['masks'][0][there], one['boxes'][0][there], batch.shape[1:3])
            assert (masks != wanted.masks).float().mean() < 1e-4
            assert wanted.masks.float().mean() > 1e-3
        total += len(wanted)
    return total


@pytest.mark.parametrize('head', HEADS)
@torch.no_grad()
def test_modules(head):
    model = detector(head)
    graph = whole_graph(model, (96, 128))
    settings = list(graph.inputs.values())[1:]
    for batch in (images(1, 97, 131), images(2, 64, 100)):
        found = dict(zip(graph.outputs, graph.module(batch, *settings), strict=True))
        assert compare(model, found, batch) > 10 * len(batch)
    # nothing is found above a score of 1
    found = dict(
        zip(graph.outputs, graph.module(batch, torch.tensor(1.0), settings[1]), strict=True)
    )
    assert not found['scores'].any()
    assert (found['labels'] == -1).all()


def run(path, **inputs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])
    names = [x.name for x in session.get_outputs()]
    values = session.run(None, {k: np.asarray(v) for k, v in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
def test_files(head, tmp_path):
    """Files for any size, and any number of images."""
    pytest.importorskip('onnxruntime')
    model, path = detector(head), tmp_path / 'x.onnx'
    graph = whole_graph(model, onnx_files.traced_size((96, 128)))
    onnx_files.export(graph, path, dynamic=True)
    assert onnx_files.check(graph, path, onnx_files.other_images(graph)) < 1e-4
    test = (model.roi_head if 'masks' in graph.outputs or head == 'Faster R-CNN' else
            model.bbox_head).test_cfg  # fmt: skip
    for batch in (images(1, 97, 131), images(2, 64, 100), images(1, 33, 70)):
        assert compare(model, run(path, image=batch), batch) > 0
    test.score_thr, test.nms.iou_threshold = 0.3, 0.2
    settings = dict(score_threshold=np.float32(0.3), iou_threshold=np.float32(0.2))
    assert compare(model, run(path, image=batch, **settings), batch) > 0
    found = run(path, image=batch, score_threshold=np.float32(1.0))
    assert not found['scores'].any()


def test_a_head_without_an_entry_loss_cls():
    """As SSD's."""
    model = detector('RetinaNet')
    del model.bbox_head.loss_cls
    assert whole_graph(model, (64, 64)).outputs == ['boxes', 'scores', 'labels']


def test_what_cannot_be_followed_is_refused():
    for head, change, text in (
        ('RetinaNet', {'nms': dict(type='soft_nms', iou_threshold=0.5)}, "nms=.*'soft_nms'.*--raw"),
        ('RetinaNet', {'nms_pre': -1}, r'RetinaHead: test_cfg has nms_pre=-1; .* nms_pre=1000'),
        ('FCOS', {'max_per_img': -1}, r'FCOSHead: test_cfg has max_per_img=-1'),
    ):
        model = detector(head)
        model.bbox_head.test_cfg.update(change)
        with pytest.raises(ExportError, match=text):
            whole_graph(model, (64, 64))
    model = detector('Mask R-CNN')
    model.roi_head.bbox_roi_extractor.roi_layers[0].pool_mode = 'max'
    with pytest.raises(ExportError, match='RoIAlign'):
        whole_graph(model, (64, 64))
    model.rpn_head = None  # Fast R-CNN
    with pytest.raises(ExportError, match='proposals from a file'):
        whole_graph(model, (64, 64))
