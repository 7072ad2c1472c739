"""End-to-end graphs of classifiers: the scores of ``test_step``."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from hybrid_mm.export.graphs import ExportError
from hybrid_mm.export.whole import whole_graph

pytest.importorskip('mmpretrain.models')
VAN = dict(
    type='hybrid_mm.VAN',
    arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4),
    out_indices=(3,),
)
POOLED = dict(neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead'))


def classifier(backbone, neck=None, head=None, **prepared):
    torch.manual_seed(0)
    settings = dict(mean=[120.0, 110, 90], std=[50.0, 60, 70]) | prepared
    head = dict(in_channels=16, num_classes=5) | (head or {})
    cfg = dict(
        type='ImageClassifier', backbone=backbone, neck=neck, head=head, _scope_='mmpretrain',
        data_preprocessor=dict(type='ClsDataPreprocessor', **settings),
    )  # fmt: skip
    return MODELS.build(ConfigDict(cfg)).eval()


@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize('divisor', [1, 32])
def test_scores(to_rgb, divisor):
    """Of any size; padded to a multiple by the preprocessor, within the graph."""
    model = classifier(VAN, **POOLED, to_rgb=to_rgb, pad_size_divisor=divisor)
    graph = whole_graph(model, (45, 70))
    image = graph.inputs['image']
    found = model.test_step(dict(inputs=[x.permute(2, 0, 1).flip(0) for x in image]))
    with torch.no_grad():
        (scores,) = graph.module(image)
    torch.testing.assert_close(scores, torch.stack([sample.pred_score for sample in found]))
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


@pytest.mark.parametrize('channels', [3, 4])
def test_channels_in_the_order_of_files(channels):
    """What ``LoadMultichannelImage`` gives is not turned around."""
    model = classifier(
        dict(VAN, in_channels=channels), **POOLED, mean=range(channels), std=[9.0] * channels
    )
    graph = whole_graph(model, (45, 70), input_type='float', keeps_order=True)
    image = graph.inputs['image']
    found = model.test_step(dict(inputs=list(image)))
    with torch.no_grad():
        (scores,) = graph.module(image)
    torch.testing.assert_close(scores, torch.stack([sample.pred_score for sample in found]))


def test_heads_of_several_labels_are_refused():
    head = dict(type='MultiLabelLinearClsHead')
    model = classifier(VAN, POOLED['neck'], head)
    with pytest.raises(ExportError, match='with MultiLabelLinearClsHead: only heads of one label'):
        whole_graph(model, (64, 64))
