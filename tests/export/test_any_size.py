"""Windows, whole maps and large kernels in graphs that leave the size of the map open."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from hybrid_mm.backbones.frames.swin import SwinBlock
from hybrid_mm.compat.torch_api import as_if_exporting
from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import ExportError, Graph, graphs_of
from hybrid_mm.layers.attention.acmix import ACmixWindowAttention
from hybrid_mm.layers.attention.elsa import ELSA
from hybrid_mm.layers.attention.global_relative_attention import GlobalRelativeAttention
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.attention.pooling_attention import PoolingAttention
from hybrid_mm.layers.attention.quadratic_attention import QuadraticAttention2d
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d
from hybrid_mm.ops.export import ceil_div
from hybrid_mm.ops.global_filter import global_filter
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.positions import bias_matrix, spread_table
from hybrid_mm.ops.windows import missing, roll

SIZES = [(5, 7), (3, 4), (2, 9), (4, 4), (8, 6), (9, 4), (13, 11), (1, 1)]
"""Smaller than a window of 4 x 4 or 4 x 3, odd, and multiples of it on one axis or both."""


class Filter(nn.Module):
    """The global filter of maps (N, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Parameter(torch.zeros(8, 6, 4, 2))

    def forward(self, x):
        return global_filter(x.permute(0, 3, 1, 2), self.spectrum)


class ChannelsFirst(nn.Sequential):
    """Layers of maps (N, C, H, W), of maps (N, H, W, C)."""

    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2))


def layers():
    """Layers of maps (N, H, W, 8) by name, with random weights."""
    torch.manual_seed(0)
    made = nn.ModuleDict(
        {
            'shifted': SwinBlock(8, WindowAttention(8, 4, 2), 4, 2),
            'always shifted': SwinBlock(8, WindowAttention(8, 4, 2), 4, 1, always_shift=True),
            'block': PartitionAttention(8, (4, 3), 4),
            'grid': PartitionAttention(8, (4, 3), 4, 'grid'),
            'whole': GlobalRelativeAttention(8, (5, 6), 4),
            'by distance': LeViTAttention(8, 8, 4, 2, 2, 5),
            'shrinking': LeViTAttention(8, 8, 4, 2, 2, 5, stride=2),
            'pooling': PoolingAttention(8, 8, 2, (6, 8), stride_kv=2),
            'pooling in windows': PoolingAttention(8, 8, 2, (6, 8), 2, 2, 4),
            'filter': Filter(),
            'shared taps': ChannelsFirst(PeripheralConv2d(8, 13, 3)),
            'separable': ChannelsFirst(QuadraticAttention2d(8, 8, 2, stride=2)),
            'ghost head': ELSA(8, 2, 5, group_width=2, lam=0),
            'ghost head with factors': ELSA(8, 2, 3, dilation=2, group_width=2),
            'shifted, with convolution': SwinBlock(8, ACmixWindowAttention(8, 4, 2), 4, 2),
        }
    ).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


@pytest.fixture(scope='module')
def made():
    return layers()


@torch.no_grad()
def test_formulations_of_exported_graphs(made):
    """At a known size, which is what tracers of numbers see."""
    for size in ((5, 7), (9, 8)):
        x = torch.randn(2, *size, 8)
        for name, layer in made.items():
            expected = layer(x)
            with as_if_exporting():
                found = layer(x)
            torch.testing.assert_close(
                found, expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f'{n}: {m}'
            )


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=pytest.mark.slow) for name in layers()],
)
def test_one_file_of_any_size(made, name, tmp_path):
    """What a file computes at each size is what PyTorch does."""
    for package in ('onnx', 'onnxruntime', 'onnxscript'):
        pytest.importorskip(package)
    graph = Graph('', made[name], {'x': torch.randn(1, 5, 7, 8)}, ['y'], {'x': (1, 2)})
    onnx_files.export(graph, tmp_path / 'x.onnx', dynamic=True)
    others = ({'x': torch.randn(1, *size, 8)} for size in SIZES)
    assert onnx_files.check(graph, tmp_path / 'x.onnx', others) < 2e-6


def cases():
    path = Path(__file__).resolve().parents[1] / 'backbones/test_all.py'
    spec = importlib.util.spec_from_file_location('cases', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


ALIKE = (
    *('VAN', 'AAResNet', 'EAAAResNet', 'SASAResNet', 'QuadraticAttentionResNet', 'ACmixResNet'),
    *('NAT', 'PVT', 'SAN', 'SLaK', 'PeLK', 'RepLKNet', 'HorNet', 'MaxViT', 'CoAtNet', 'BoTNet'),
)
"""Networks with blocks that are alike within a stage: one of each is exported."""


@torch.no_grad()
def network(name):
    """A network of the contract, without parameters that are constant, which would hide much."""
    torch.manual_seed(0)
    config = copy.deepcopy(cases()[name])
    if config['type'].split('.')[1] in ALIKE:
        config['arch']['depths'] = [1] * len(config['arch']['depths'])
    made = MODELS.build(config)
    for parameter in made.parameters():
        if parameter.numel() > 1 and parameter.std() < 0.05:
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('name', cases())
def test_networks_of_any_size(name, tmp_path):
    """Larger, smaller, upright and square images, which windows divide or not; one and two."""
    pytest.importorskip('onnxruntime')
    (graph,) = graphs_of(network(name), onnx_files.traced_size((64, 96)), batch=2)
    graph.any_batch = True
    onnx_files.export(graph, tmp_path / 'x.onnx', dynamic=True)
    assert graph.any_batch
    sizes = [(1, 99, 65), (2, 37, 201), (1, 96, 96), (2, 33, 45), (1, 224, 160)]
    if name == 'ea-aa-resnet-capped':  # as many poolings
        sizes = [(1, 99, 65), (2, 64, 96)]
    others = [{'image': torch.randn(n, 3, *size)} for n, *size in sizes]
    assert onnx_files.check(graph, tmp_path / 'x.onnx', others) < 1e-5
    if name == 'ea-aa-resnet-capped':
        with pytest.raises(ExportError, match=r'onnxruntime cannot run it.*ind'):
            onnx_files.difference(graph, tmp_path / 'x.onnx', {'image': torch.randn(2, 3, 32, 32)})


@pytest.mark.parametrize('size', [(1, 1), (4, 3), (5, 9)])
def test_tables_by_pairs_of_positions(size):
    height, width = size
    table = torch.randn(2, 2 * height - 1, 2 * width - 1)
    rows, columns = (torch.arange(n) for n in size)
    rows, columns = (p - p[:, None] + len(p) - 1 for p in (rows, columns))
    assert torch.equal(spread_table(table, rows, columns), bias_matrix(table))
    fewer = spread_table(table, rows[::2], columns[::2])
    expected = bias_matrix(table).view(2, height, width, -1)[:, ::2, ::2].flatten(1, 2)
    assert torch.equal(fewer, expected)


@pytest.mark.parametrize('channels', [3, 8])
@pytest.mark.parametrize('size', [(3, 5), (17, 31), (1, 1), (40, 8)])
@pytest.mark.parametrize(
    ('rows', 'columns'),
    [((9, 4, 1, 1, 1, 4, 9), (2, 1, 2)), ((1,) * 5, (1,) * 3), ((2, 1, 2), (2, 1, 2))],
)
def test_large_kernels_of_exported_graphs(rows, columns, size, channels):
    """Shared taps by products, others with channels padded to a multiple of 4."""
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    weight = torch.randn(channels, len(rows), len(columns), dtype=torch.float64)
    expected = grid_convolution(x, weight, rows, columns, impl='reference')
    with as_if_exporting():
        found = grid_convolution(x, weight, rows, columns)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_lengths_in_windows():
    assert [ceil_div(n, 4) for n in (1, 3, 4, 5, 8)] == [1, 1, 1, 2, 2]
    assert [missing(n, 4) for n in (1, 3, 4, 5, 8)] == [3, 1, 0, 3, 0]
    x = torch.arange(2 * 3 * 4).view(1, 3, 4, 2)
    assert torch.equal(roll(roll(x, -2), 2), x) and roll(x, 0) is x
    assert torch.equal(roll(x, -1)[0, 0, 0], x[0, 1, 1])
