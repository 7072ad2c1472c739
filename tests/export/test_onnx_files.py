"""Graphs as ONNX files that onnxruntime runs."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

from hybrid_mm.compat.torch_api import as_if_exporting
from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import ExportError, Graph, graphs_of
from hybrid_mm.export.open_sizes import open_sizes
from hybrid_mm.layers.attention.halo_attention import HaloAttention
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.convolution.deform_conv import DeformConv2d
from hybrid_mm.ops.global_filter import global_filter
from hybrid_mm.zoo.families import model_with

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(
    type='hybrid_mm.VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)
)


def cases():
    path = ROOT / 'tests/backbones/test_all.py'
    spec = importlib.util.spec_from_file_location('cases', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


# one of each operator of ours; docs/export.md has all families, and test_all.py their formulations
@pytest.mark.parametrize('name', [
    *(pytest.param(name, marks=pytest.mark.slow) for name in
      ('hornet-gf', 'elsa-swin', 'nat', 'san-patchwise', 'ea-aa-resnet', 'lesa-resnet')),
])  # fmt: skip
def test_backbones(name, tmp_path):
    torch.manual_seed(0)
    (graph,) = graphs_of(MODELS.build(copy.deepcopy(cases()[name])), (64, 96))
    path = tmp_path / 'x.onnx'
    onnx_files.export(graph, path)
    assert onnx_files.check(graph, path) < 1e-5
    operators = onnx.load(path).opset_import
    assert not {item.domain for item in operators} & {'hybrid_mm', 'torchvision'}


def test_a_file_of_other_weights_is_told(tmp_path):
    first, second = (graphs_of(MODELS.build(copy.deepcopy(SMALL)), (64, 64))[0] for _ in '12')
    onnx_files.export(first, tmp_path / 'x.onnx')
    onnx_files.check(first, tmp_path / 'x.onnx')
    with pytest.raises(ValueError, match=r'differs by .* from PyTorch with inputs of 1x3x64x64'):
        onnx_files.check(second, tmp_path / 'x.onnx')


@pytest.mark.slow
@pytest.mark.parametrize('head', ['Semantic FPN', 'UPerNet'])
def test_dynamic_sizes(head, tmp_path):
    torch.manual_seed(0)
    model, size = model_with(SMALL, head), onnx_files.traced_size((64, 96))
    (graph,) = graphs_of(model, size)
    onnx_files.export(graph, tmp_path / 'x.onnx', dynamic=True)
    others = list(onnx_files.other_sizes(model, size, ''))
    assert len({tuple(x['image'].shape) for x in (graph.inputs, *others)}) == 4
    assert onnx_files.check(graph, tmp_path / 'x.onnx', others) < 1e-5


@pytest.mark.slow
def test_local_attention_of_any_size(tmp_path):
    """Maps that tiles do not divide, or smaller than a window; all others are in test_any_size."""
    torch.manual_seed(0)
    # one stage of one block: the rest is the same again
    model = MODELS.build({**copy.deepcopy(cases()['nat']), 'out_indices': (0,)})
    (graph,) = graphs_of(model, (65, 99))
    onnx_files.export(graph, tmp_path / 'x.onnx', dynamic=True)
    others = [graphs_of(model, size)[0].inputs for size in ((99, 65), (64, 64), (20, 33))]
    assert onnx_files.check(graph, tmp_path / 'x.onnx', others) < 1e-5


def test_what_stands_in_for_modules_of_one_size(monkeypatch):
    """Pooling of any size to any number of parts, and up-sampling, give what the modules give."""
    cases = [
        (torch.randn(2, 3, *size, dtype=torch.float64), parts)
        for size in ((7, 9), (6, 12), (13, 5), (1, 1), (3, 2))
        for parts in (1, 2, 3, (6, 4), (5, 1), (None, 3))
    ]
    expected = [F.adaptive_avg_pool2d(*case) for case in cases]
    with open_sizes(nn.Identity()), monkeypatch.context() as patch:
        patch.setattr(torch._C._nn, 'adaptive_avg_pool2d', None)  # what the function calls
        for (x, parts), wanted in zip(cases, expected, strict=True):
            torch.testing.assert_close(F.adaptive_avg_pool2d(x, parts), wanted)
            torch.testing.assert_close(nn.AdaptiveAvgPool2d(parts)(x), wanted)
    from mmseg.models.utils import Upsample

    for mode, align in (('bilinear', False), ('bilinear', True), ('nearest', None)):
        model = nn.Sequential(Upsample(scale_factor=2.0, mode=mode, align_corners=align))
        x = torch.randn(1, 2, 5, 7)
        expected = model(x)
        with open_sizes(model):
            assert 'forward' in vars(model[0])
            torch.testing.assert_close(model(x), expected)


def test_tolerance_of_the_comparison(monkeypatch):
    """Rounding passes, 5e-4 of the largest number does not, wherever it is, and NaN neither."""
    values = torch.tensor([[100.0, 1.0, -3.0]])
    graph = Graph('', nn.Identity(), dict(x=values), ['y'], {})
    found = {}
    monkeypatch.setattr(onnx_files, 'difference', lambda g, path, inputs: found['y'])
    for found['y'], passes in (
        (0.0, True),
        (9e-5, True),
        (1.1e-4, False),
        (5e-4, False),
        (float('nan'), False),
    ):
        if passes:
            assert onnx_files.check(graph, 'x.onnx') == found['y']
        else:
            with pytest.raises(ValueError, match=r'differs by .* inputs of 1x3; 1e-04 is allowed'):
                onnx_files.check(graph, 'x.onnx')


def test_difference_is_relative_to_the_largest_number(monkeypatch):
    import onnxruntime

    values = torch.tensor([[100.0, 1.0, -3.0]])
    graph = Graph('', nn.Identity(), dict(x=values), ['y'], {})

    class Session:
        def __init__(self, *args):
            pass

        def run(self, names, inputs):
            return [answer]

    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    for change, expected in (([0.0, 0, 0], 0.0), ([0, 0.5, 0], 0.005), ([-2, -0.5, 0], 0.02)):
        answer = (values + torch.tensor(change)).numpy()
        assert onnx_files.difference(graph, 'x.onnx') == pytest.approx(expected, abs=1e-6)
    answer = values.numpy()[0]
    with pytest.raises(ValueError, match=r'y has the shape \(3,\) instead of \(1, 3\)'):
        onnx_files.difference(graph, 'x.onnx')


@pytest.mark.parametrize('size', [(7, 9), (8, 8), (25, 42), (1, 1)])
def test_fourier_filter_by_matrices(size):
    spectrum = torch.randn(4, 14, 8, 2, dtype=torch.float64)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    expected = global_filter(x, spectrum)
    with as_if_exporting():
        torch.testing.assert_close(global_filter(x, spectrum), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(('groups', 'stride'), [(1, 1), (2, 2)])
def test_deformable_convolution_by_sampling(groups, stride):
    layer = DeformConv2d(8, groups, stride).double()
    layer.conv_offset.weight.data.normal_()
    layer.conv_offset.bias.data.normal_()
    x = torch.randn(2, 8, 13, 17, dtype=torch.float64)
    expected = layer(x)
    with as_if_exporting():
        torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-12)


def test_long_exports_are_said_before_they_run(monkeypatch, tmp_path):
    assert onnx_files.forecast(100, 1.0) == ''
    line = onnx_files.forecast(12_345, 10.0)
    assert line.startswith('12,345 operators traced in 10 s; translating them takes about 50 s')

    def stop(*args, **kwargs):
        raise RuntimeError('stopped')

    monkeypatch.setattr(torch.onnx, 'export', stop)
    x = torch.rand(1, 3, 4, 4)
    graph = Graph('', nn.ReLU(), dict(image=x), ['y'], {})
    said = []
    for limit, count in ((1e9, 0), (0.0, 1)):
        monkeypatch.setattr(onnx_files, 'LONG', limit)
        with pytest.raises(ExportError, match='stopped'):
            onnx_files.export(graph, tmp_path / 'x.onnx', say=said.append)
        assert len(said) == count


@pytest.mark.slow
def test_filters_made_of_pooled_maps(tmp_path):
    """As in DMHead and APCHead: pooled by the function, a group for each image and channel."""

    class Dynamic(nn.Module):
        def forward(self, image):
            kernel = F.adaptive_avg_pool2d(image, 3)
            number, channels = image.shape[:2]
            x = F.pad(image, (1, 1, 1, 1)).flatten(0, 1)[None]
            x = F.conv2d(x, kernel.flatten(0, 1)[:, None], groups=number * channels)
            return x.unflatten(1, (number, channels))

    inputs = dict(image=torch.rand(2, 3, 9, 11))
    graph = Graph('', Dynamic(), inputs, ['y'], {'image': (2, 3)}, any_batch=True)
    said = []
    onnx_files.export(graph, tmp_path / 'x.onnx', dynamic=True, say=said.append)
    assert 'the file takes one' in said[-1] and not graph.any_batch
    others = [dict(image=torch.rand(1, 3, *size)) for size in ((20, 7), (2, 2), (12, 12))]
    assert onnx_files.check(graph, tmp_path / 'x.onnx', others) < 1e-5


def test_a_file_that_does_not_run_is_not_written(tmp_path):
    """What was there before stays, and the message names the head."""

    class Beyond(nn.Module):
        def forward(self, image):
            return image.flatten()[(image.flatten()[:2] * 0 + 1000).long()]

    graph = Graph('', Beyond(), dict(image=torch.rand(1, 3, 4, 4)), ['y'], {}, name='A with BHead')
    path = tmp_path / 'x.onnx'
    path.write_bytes(b'before')
    text = r'A with BHead cannot be exported: onnxruntime cannot run it: .*1000'
    with pytest.raises(ExportError, match=text):
        onnx_files.export(graph, path)
    assert path.read_bytes() == b'before' and list(tmp_path.iterdir()) == [path]


def test_images_are_traced_with_several_windows():
    """With one window on an axis of a map, the tracer would take one for all sizes."""
    image = torch.rand(2, 3, 65, 99)
    for layer, shape in (
        (nn.Conv2d(3, 4, 1), (65, 99)),
        (WindowAttention(8, 7, 2), (225, 259)),
        (HaloAttention(8, heads=2, block_size=2), (65, 99)),
    ):
        graph = Graph('', nn.Sequential(layer), {'image': image}, ['y'], {'image': (2, 3)})
        assert onnx_files._example(graph)['image'].shape == (2, 3, *shape)
        assert graph.inputs['image'] is image
    graph = Graph('', nn.Conv2d(3, 4, 1), {'image': image}, ['y'], {'image': (2, 3)}, least=129)
    assert onnx_files._example(graph)['image'].shape == (2, 3, 129, 131)  # two rows and columns
    graph = Graph('', WindowAttention(8, 7, 2), {'window': image}, ['y'], {'window': (2, 3)})
    assert onnx_files._example(graph)['window'].shape == (2, 3, 225, 259)
