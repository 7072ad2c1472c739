"""End-to-end graphs of Mask2Former: results as ``test_step`` returns them."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import ExportError
from hybrid_mm.export.open_sizes import open_sizes
from hybrid_mm.export.whole import whole_graph

pytest.importorskip('mmdet.models')
pytest.importorskip('mmseg.models')
MODEL = Path(__file__).resolve().parents[2] / 'configs/_base_/models'
SMALL = dict(
    type='hybrid_mm.VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)
)


def mask2former(name: str, **test):
    """A small Mask2Former with random weights, and masks and classes that it is sure of."""
    cfg = Config.fromfile(MODEL / f'{name}.py').model
    cfg.backbone = ConfigDict(copy.deepcopy(SMALL))
    head = cfg.get('panoptic_head') or cfg.decode_head
    head.update(in_channels=[8, 8, 16, 16], feat_channels=32, out_channels=32, num_queries=12)
    pixels = head.pixel_decoder
    pixels.norm_cfg.num_groups = 4
    for part in (head, pixels):
        part.positional_encoding.num_feats = 16
    for part, layers in ((pixels.encoder, 1), (head.transformer_decoder, 2)):
        part.num_layers = layers
        for key, settings in part.layer_cfg.items():
            sizes = dict(num_heads=4) if 'attn' in key else dict(feedforward_channels=64)
            settings.update(embed_dims=32, **sizes)
    cfg.test_cfg.update(test)
    torch.manual_seed(3)
    with DefaultScope.overwrite_default_scope('mmseg' if 'decode_head' in cfg else 'mmdet'):
        model = MODELS.build(cfg).eval()
    head = model.decode_head if hasattr(model, 'decode_head') else model.panoptic_head
    for weight in (head.query_feat.weight, head.query_embed.weight, head.cls_embed.weight):
        torch.nn.init.normal_(weight, std=3)
    return model


def step(model, image, photo):
    """Results of ``test_step`` for one image in the order red, green, blue."""
    from mmdet.structures import DetDataSample
    from mmseg.structures import SegDataSample

    kind = SegDataSample if hasattr(model, 'decode_head') else DetDataSample
    size = tuple(image.shape[1:3])
    sample = kind(metainfo=dict(ori_shape=photo, img_shape=size, batch_input_shape=size))
    bgr = image[0].permute(2, 0, 1).flip(0)
    return model.test_step(dict(inputs=[bgr], data_samples=[sample]))[0]


@pytest.mark.parametrize('photo', [(61, 75), (90, 110)])
def test_objects_and_panoptic_map(photo):
    for filters in (True, False):
        test = dict(filter_low_score=filters, object_mask_thr=0.02, iou_thr=0.3, max_per_image=60)
        model = mask2former('mask2former_r50', **test)
        graph = whole_graph(model, (61, 75), batch=1)
        assert graph.outputs == ['boxes', 'scores', 'labels', 'masks', 'panoptic_map']
        image = graph.inputs['image']
        expected = step(model, image, photo)
        with torch.no_grad():
            found = dict(zip(graph.outputs, graph.module(image, torch.tensor(photo)), strict=True))
        there = found['labels'][0] >= 0
        objects = expected.pred_instances
        assert 0 < there.sum() == len(objects) < 60  # some of the 60 are stuff
        assert there[: len(objects)].all() and not found['scores'][0, ~there].any()
        assert not found['boxes'][0, ~there].any() and not found['masks'][0, ~there].any()
        order = objects.scores.argsort(descending=True)
        torch.testing.assert_close(found['scores'][0, there], objects.scores[order])
        assert torch.equal(found['labels'][0, there], objects.labels[order])
        assert torch.equal(found['boxes'][0, there], objects.bboxes[order])
        assert torch.equal(found['masks'][0, there], objects.masks[order])
        panoptic = expected.pred_panoptic_seg.sem_seg[0]
        assert torch.equal(found['panoptic_map'][0], panoptic) and len(panoptic.unique()) > 1


@pytest.mark.parametrize('filters', [True, False])
def test_panoptic_maps(filters):
    """Of masks that overlap: things are numbered, stuff is not, and small rests are left out."""
    model = mask2former('mask2former_r50', filter_low_score=filters, iou_thr=0.3)
    network = whole_graph(model, (64, 64), batch=1).module.network
    torch.manual_seed(0)
    scores = torch.randn(3, 12, 134) * 0.1
    for image in scores:
        for row, label in zip(image, (2, 5, 5, 90, 133, 100, 90, 79, 80, 7, 133, 2), strict=True):
            row[label] += torch.rand(()) * 6 + 5
    masks = torch.nn.functional.interpolate(torch.randn(3, 12, 4, 5) * 4, (41, 52), mode='bilinear')
    found = network._panoptic(scores.softmax(-1), masks)
    kinds = set()
    for one, label_scores, logits in zip(found, scores, masks, strict=True):
        expected = model.panoptic_fusion_head.panoptic_postprocess(label_scores, logits)
        assert torch.equal(one, expected.sem_seg[0])
        kinds |= {(n % 1000 < 80, n >= 2000, n == 133) for n in one.unique().tolist()}
    assert len(kinds) == 4  # objects, the first and others, stuff and what is neither


def test_nothing_is_sure_enough():
    model = mask2former('mask2former_r50', object_mask_thr=1.0, instance_on=False)
    graph = whole_graph(model, (61, 75), batch=1)
    assert graph.outputs == ['panoptic_map']
    with torch.no_grad():
        (found,) = graph.module(*graph.inputs.values())
    assert torch.equal(found.unique(), torch.tensor([133], dtype=torch.int32))


def test_label_map():
    model = mask2former('mask2former_r50_semantic')
    graph = whole_graph(model, (61, 75), batch=1, probabilities=True)
    image, photo = graph.inputs['image'], (90, 110)
    expected = step(model, image, photo)
    with torch.no_grad():
        labels, probabilities = graph.module(image, torch.tensor(photo))
    assert torch.equal(labels.long(), expected.pred_sem_seg.data) and len(labels.unique()) > 1
    scores = expected.seg_logits.data
    torch.testing.assert_close(probabilities[0], scores / scores.sum(0))


def test_stand_in_of_the_pixel_decoder():
    """It computes what MMDetection's decoder and MMCV's attention compute."""
    decoder = mask2former('mask2former_r50').panoptic_head.pixel_decoder.double()
    torch.nn.init.normal_(decoder.encoder.layers[0].self_attn.sampling_offsets.weight)
    maps = [torch.randn(2, c, *s, dtype=torch.float64) for c, s in
            zip((8, 8, 16, 16), ((15, 19), (8, 10), (4, 5), (2, 3)), strict=True)]  # fmt: skip
    with torch.no_grad():
        mask, expected = decoder(maps)
        with open_sizes(decoder):
            found, levels = decoder(maps)
    torch.testing.assert_close(found, mask, rtol=1e-6, atol=1e-6)
    for a, b in zip(levels, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['', '_instance', '_semantic'])
def test_files(name, tmp_path):
    pytest.importorskip('onnxscript')
    graph = whole_graph(mask2former(f'mask2former_r50{name}', object_mask_thr=0.02), (65, 99))
    onnx_files.export(graph, tmp_path / 'x.onnx', dynamic=True)
    assert graph.any_batch
    others = onnx_files.other_images(graph)
    assert onnx_files.check(graph, tmp_path / 'x.onnx', others) < 1e-4


def test_other_models_with_queries_are_refused():
    model = mask2former('mask2former_r50')
    model.panoptic_fusion_head.test_cfg.semantic_on = True
    with pytest.raises(ExportError, match='semantic_on'):
        whole_graph(model, (64, 64))
    model.panoptic_head.__class__ = type('MaskFormerHead', (type(model.panoptic_head),), {})
    with pytest.raises(ExportError, match='Mask2Former with MaskFormerHead: of the models'):
        whole_graph(model, (64, 64))
