"""Parts of models that are exported, and models that are refused."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import graphs_of
from hybrid_mm.zoo.families import model_with

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


ROOT = Path(__file__).resolve().parents[2]


SMALL = dict(
    type='hybrid_mm.VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)
)


@pytest.mark.slow
def test_mask_rcnn_in_two_files(tmp_path):
    torch.manual_seed(0)
    model = model_with(SMALL, 'Mask R-CNN')
    first, second = graphs_of(model, (96, 128))
    assert second.outputs == ['cls_score', 'bbox_pred', 'mask_logits']
    for graph in (first, second):
        onnx_files.export(graph, tmp_path / 'x.onnx')
        assert onnx_files.check(graph, tmp_path / 'x.onnx') < 1e-5
    # what the traced module computes is what MMDetection's heads compute
    rois, *maps = second.inputs.values()
    with torch.no_grad():
        scores, boxes, masks = second.module(rois, *maps)
        expected = model.roi_head._bbox_forward(maps, rois)
        torch.testing.assert_close(scores, expected['cls_score'], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(boxes, expected['bbox_pred'], rtol=1e-4, atol=1e-5)
        wanted = model.roi_head._mask_forward(maps, rois)['mask_preds']
        torch.testing.assert_close(masks, wanted, rtol=1e-4, atol=1e-5)


def test_other_heads_are_refused():
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/cascade-mask-rcnn_r50_fpn.py').model
    cfg.backbone, cfg.neck.in_channels = copy.deepcopy(SMALL), [8, 8, 16, 16]
    with pytest.raises(ValueError, match=r'CascadeRoIHead: only .* use --backbone-only'):
        graphs_of(MODELS.build(cfg), (64, 64))
