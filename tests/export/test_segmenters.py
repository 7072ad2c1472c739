"""End-to-end graphs of segmenters: label maps as MMSegmentation's ``test_step`` makes them."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import nn

from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import ExportError
from hybrid_mm.export.segmenters import SlidingWindows, WholeImage
from hybrid_mm.export.sliding import parts_of_windows
from hybrid_mm.export.whole import whole_graph

pytest.importorskip('mmseg.models')
HEAD = dict(in_channels=6, channels=6, in_index=0, num_convs=1, dropout_ratio=0, num_classes=5)
PREPARED = dict(mean=[120.0, 110, 90], std=[50.0, 60, 70])


@MODELS.register_module(name='MapsOfAConvolution', force=True)
class Maps(nn.Module):
    """A backbone of one convolution of stride 4, for maps that depend on the surroundings."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 9, stride=4, padding=4)

    def forward(self, x):
        return (self.conv(x).tanh(),)


def segmenter(head=(), test=(), **prepared):
    """A small segmenter; ``prepared`` are settings of its data preprocessor."""
    torch.manual_seed(0)
    cfg = dict(
        type='EncoderDecoder',
        _scope_='mmseg',
        backbone=dict(type='MapsOfAConvolution'),
        decode_head={'type': 'FCNHead', **HEAD, **dict(head)},
        data_preprocessor=dict(type='SegDataPreProcessor', **PREPARED, **prepared),
        test_cfg={'mode': 'whole', **dict(test)},
    )
    return MODELS.build(ConfigDict(cfg)).eval()


def predicted(model, image, photo):
    """Label map and logits of MMSegmentation, for an image in the order red, green, blue."""
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(ori_shape=photo, img_shape=tuple(image.shape[1:3])))
    bgr = image[0].permute(2, 0, 1).flip(0)
    (found,) = model.test_step(dict(inputs=[bgr], data_samples=[sample]))
    return found.pred_sem_seg.data[0], found.seg_logits.data


SLIDE = dict(mode='slide', crop_size=(40, 48), stride=(25, 30))
CASES = [
    (dict(), dict(), dict(bgr_to_rgb=True)),
    (dict(align_corners=True), dict(), dict()),
    (dict(), dict(), dict(test_cfg=dict(size_divisor=32), pad_val=7)),
    (dict(), dict(), dict(test_cfg=dict(size=(80, 90)))),
    (dict(num_classes=2, out_channels=1, threshold=0.47), dict(), dict()),
    (dict(num_classes=300), dict(), dict()),
    (dict(), SLIDE, dict(bgr_to_rgb=True)),
    (dict(), SLIDE, dict(test_cfg=dict(size_divisor=32))),
]


@pytest.mark.parametrize(('head', 'test', 'prepared'), CASES)
def test_label_maps_are_those_of_mmsegmentation(head, test, prepared):
    """At the size of the image, and, through it, at that of the photo."""
    model = segmenter(head, test, **prepared)
    graph = whole_graph(model, (61, 75), probabilities=True)
    for height, width in ((61, 75), (30, 100)):
        image = graph.module.prepare.example((height, width))
        for photo in ((height, width), (90, 50)):
            labels, logits = predicted(model, image, photo)
            with torch.no_grad():
                found, probabilities = graph.module(image, torch.tensor(photo))
            assert found.shape == (1, *photo)
            assert found.dtype == (torch.int32 if logits.shape[0] > 256 else torch.uint8)
            assert (found[0] == labels).float().mean() > 0.999 and len(labels.unique()) > 1
            expected = logits if logits.shape[0] == 1 else logits.softmax(0)
            torch.testing.assert_close(probabilities[0], expected, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            at_image = graph.module(image, torch.tensor([0, 0]))[0]
        assert at_image.shape == (1, height, width)


def test_images_of_both_types_are_the_same():
    model = segmenter(bgr_to_rgb=True)
    whole = whole_graph(model, (32, 48))
    parts = whole_graph(model, (32, 48), input_type='float')
    image, size = whole.inputs['image'], torch.tensor([0, 0])
    assert parts.inputs['image'].shape == (2, 3, 32, 48) and image.shape == (2, 32, 48, 3)
    with torch.no_grad():
        found = parts.module(image.permute(0, 3, 1, 2).float(), size)[0]
        assert torch.equal(found, whole.module(image, size)[0])


@pytest.mark.parametrize('test', [SLIDE, pytest.param(dict(), marks=pytest.mark.slow)])
def test_files(tmp_path, test):
    """Of any size and number of images; windows are a loop, also in images smaller than one."""
    onnx = pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    # with aligned corners, MMSegmentation and torch compare sizes, which would fix them
    model = segmenter(dict(align_corners=bool(test)), test, bgr_to_rgb=True)
    graph = whole_graph(model, (61, 75), probabilities=True)
    path = tmp_path / 'x.onnx'
    onnx_files.export(graph, path, dynamic=True)
    assert graph.any_batch
    sizes = ((1, 61, 75), (2, 30, 100), (1, 40, 48), (1, 66, 79))
    inputs = [
        {'image': graph.module.prepare.example((h, w), 3, n), 'size': torch.tensor(size)}
        for (n, h, w), size in zip(sizes, ((0, 0), (90, 50), (0, 0), (0, 0)), strict=True)
    ]
    assert onnx_files.check(graph, path, inputs) < 1e-5
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert ('Loop' in operators) == bool(test)
    session = runtime.InferenceSession(path)
    image = inputs[1]['image'].numpy()
    assert session.run(['label_map'], {'image': image})[0].shape == (2, 30, 100)


def test_labels_may_differ_where_classes_are_equal_up_to_rounding():
    graph = whole_graph(segmenter(), (32, 48), batch=1)
    image, size = graph.inputs['image'], torch.tensor([0, 0])
    with torch.no_grad():
        right = graph.module(image, size)[0]
        scores = graph.module.network.scores(graph.module.prepare(image), (32, 48), size)
        assert graph.module.difference({'label_map': right}, image, size) == 0
        best = scores.topk(2, 1)
        gap = best.values[:, 0] - best.values[:, 1]
        for place in (gap.argmin(), gap.argmax()):
            wrong = right.clone()
            wrong.view(-1)[place] = best.indices[:, 1].reshape(-1)[place]
            found = graph.module.difference({'label_map': wrong}, image, size)
            assert found == pytest.approx((gap.view(-1)[place] / scores.abs().max()).item())
        with pytest.raises(ExportError, match=r'label_map is torch.uint8, .1, 32, 47.'):
            graph.module.difference({'label_map': right[..., 1:]}, image, size)


def test_parts_of_sliding_windows():
    graph = whole_graph(segmenter(test=SLIDE), (61, 75), batch=1)
    assert isinstance(graph.module.network, SlidingWindows)
    assert graph.module.network.properties['windows'] == dict(crop=(40, 48), stride=(25, 30))
    shapes = [
        tuple(parts_of_windows(graph, dynamic)[1].inputs['window'].shape)
        for dynamic in (True, False)
    ]
    assert shapes == [(1, 3, 41, 51), (1, 3, 40, 48)]
    small = whole_graph(segmenter(test=SLIDE), (30, 75), batch=1)
    assert parts_of_windows(small, False)[1].inputs['window'].shape == (1, 3, 30, 48)


def test_heads_that_are_refused():
    model = segmenter()
    assert type(whole_graph(model, (32, 32)).module.network) is WholeImage

    class Points(type(model.decode_head)):
        def predict(self, *args):
            raise NotImplementedError

    model.decode_head.__class__ = Points
    with pytest.raises(ExportError, match='EncoderDecoder with Points: only heads of one map'):
        whole_graph(model, (32, 32))
    model.test_cfg = ConfigDict()
    model.__class__ = type('Other', (type(model),), {})
    with pytest.raises(ExportError, match='Other has no end-to-end graph; use --raw'):
        whole_graph(model, (32, 32))


def test_weights_of_more_than_two_gigabytes_are_in_a_second_file(tmp_path, monkeypatch):
    pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    from hybrid_mm.export.graphs import Graph

    x = torch.rand(1, 3, 8, 8)
    graph = Graph('', nn.Conv2d(3, 40, 3), {'image': x}, ['y'], {'image': (2, 3)})
    for limit, outside in ((1000, True), (10**6, False)):  # the second export removes the first's
        monkeypatch.setattr(onnx_files, 'LARGE', limit)
        onnx_files.export(graph, tmp_path / 'x.onnx')
        assert (tmp_path / 'x.onnx.data').exists() == outside
        session = runtime.InferenceSession(tmp_path / 'x.onnx')
        found = session.run(None, {'image': x.numpy()})[0]
        np.testing.assert_allclose(found, graph.module(x).detach().numpy(), atol=1e-5)


def test_networks_that_fix_the_number_of_images_get_one():
    """Without a word the tracer would make two images of the example a condition of the file."""
    from hybrid_mm.export.graphs import Graph

    class Fixes(nn.Module):
        def forward(self, image):
            return image + torch.arange(len(image))[:, None, None, None]

    for module, fixes in ((nn.ReLU(), False), (Fixes(), True)):
        axes = {'image': (2, 3)}
        graph = Graph('', module, {'image': torch.rand(2, 3, 5, 7)}, ['y'], axes, any_batch=True)
        onnx_files._traced(graph, module, True)
        assert graph.any_batch is not fixes
        assert len(graph.inputs['image']) == (1 if fixes else 2)


@pytest.mark.slow
def test_files_say_for_how_many_images_they_are(tmp_path):
    """One of a fixed size, unless it is asked for more; one where the network fixes the number."""
    onnx = pytest.importorskip('onnx')
    from hybrid_mm.export.graphs import Graph

    class Fixes(nn.Module):
        def forward(self, image):
            return image + torch.arange(len(image))[:, None, None, None]

    for module, dynamic, any_batch, number, told in (
        (nn.ReLU(), False, True, 1, False),
        (nn.ReLU(), False, False, 2, False),
        (Fixes(), True, True, 1, True),
    ):
        image = {'image': torch.rand(2, 3, 5, 7)}
        graph = Graph('', module, image, ['y'], {'image': (2, 3)}, any_batch=any_batch)
        lines = []
        onnx_files.export(graph, tmp_path / 'x.onnx', dynamic, say=lines.append)
        shape = onnx.load(tmp_path / 'x.onnx').graph.input[0].type.tensor_type.shape
        assert shape.dim[0].dim_value == number == len(graph.inputs['image'])
        assert any('fixes the number of images' in line for line in lines) == told
