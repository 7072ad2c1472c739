"""Operators of detectors, in PyTorch and in ONNX."""

import numpy as np
import pytest
import torch
from torch import nn

from hybrid_mm.export.graphs import Graph
from hybrid_mm.export.onnx_files import export
from hybrid_mm.export.operators import nms_mask, pyramid_roi_align


def boxes(*shape):
    corner = torch.rand(*shape, 2) * 60
    return torch.cat([corner, corner + torch.rand(*shape, 2) * 40], -1)


def test_nms_keeps_what_mmcv_keeps():
    from mmcv.ops import nms

    torch.manual_seed(0)
    places, scores = boxes(2, 100), torch.rand(2, 100) - 0.3
    for threshold in (0.1, 0.5, 1.0):
        kept = nms_mask(places, scores, torch.tensor(threshold), 1000)
        for i in range(2):
            found = nms(places[i], scores[i], threshold, score_threshold=1e-9)[1]
            assert kept[i].nonzero().flatten().tolist() == sorted(found.tolist())
        few = nms_mask(places, scores, torch.tensor(threshold), 5)
        assert (few <= kept).all()
        assert few.sum(1).tolist() == [5, 5]
        best = torch.where(kept, scores, -1).topk(5).indices
        assert few.gather(1, best).all()
    assert not nms_mask(places, -scores.abs(), torch.tensor(0.5), 5).any()


class Both(nn.Module):
    def forward(self, places, scores, threshold, rois, levels, first, second):
        features = pyramid_roi_align(rois, levels, [first, second], [4, 8], 7, 5, 0, True)
        return nms_mask(places, scores, threshold, 20), features


def test_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    torch.manual_seed(0)
    rois = torch.cat([torch.randint(0, 2, (30, 1)), boxes(30)], 1)
    inputs = dict(
        places=boxes(2, 100),
        scores=torch.rand(2, 100) - 0.3,
        threshold=torch.tensor(0.5),
        rois=rois,
        levels=torch.randint(0, 2, (30,)),
        first=torch.randn(2, 5, 25, 25),
        second=torch.randn(2, 5, 13, 13),
    )
    axes = dict(places=(0,), scores=(0,), rois=(0,), levels=(0,))
    axes.update(first=(0, 2, 3), second=(0, 2, 3))
    graph = Graph('', Both(), inputs, ['kept', 'features'], axes)
    export(graph, tmp_path / 'x.onnx', dynamic=True)
    session = onnxruntime.InferenceSession(str(tmp_path / 'x.onnx'))

    def check(**changes):
        given = {**inputs, **changes}
        kept, features = session.run(None, {k: v.numpy() for k, v in given.items()})
        expected = graph.module(*given.values())
        np.testing.assert_array_equal(kept, expected[0].numpy())
        np.testing.assert_allclose(features, expected[1].numpy(), atol=1e-5)
        return kept, features

    assert check()[0].sum() == 40
    check(threshold=torch.tensor(0.1))
    assert not check(scores=-inputs['scores'].abs())[0].any()
    check(levels=torch.zeros(30, dtype=torch.int64))  # a level without regions
    check(places=inputs['places'][:1], scores=inputs['scores'][:1])
    point = rois * torch.tensor([1, 1, 1, 0, 0]) + rois[:, [0, 1, 2, 1, 2]] * torch.tensor(
        [0, 0, 0, 1, 1]
    )
    assert not check(rois=point)[1].any()  # regions without area
