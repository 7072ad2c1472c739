"""What operators must not do on a GPU: copy from the host, or lack a deterministic gradient.

Seen on fake CUDA tensors, within the bodies of our operators and of their gradients. A copy stalls
the GPU, and cannot be captured in a CUDA graph; nothing is copied once a shape has been seen.
"""

import pytest
import torch
from torch import Tensor, nn

from hybrid_mm.benchmarks.gpu_counts.engine import backward
from hybrid_mm.benchmarks.gpu_counts.fake_cuda import Bodies, fake_cuda
from hybrid_mm.compat.torch_api import tree_leaves
from hybrid_mm.layers import PairwiseAttention2d
from hybrid_mm.ops import kernels
from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.dispatch import choices
from hybrid_mm.ops.distance_attention import distance_attention
from hybrid_mm.ops.evolving_attention import evolving_attention
from hybrid_mm.ops.ghost_attention import ghost_attention
from hybrid_mm.ops.global_filter import global_filter
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.implicit_norm import merged_statistics, normalisation
from hybrid_mm.ops.lambda_attention import lambda_attention
from hybrid_mm.ops.learned_queries import learned_query_attention
from hybrid_mm.ops.local_attention import (
    block_attention,
    global_attention,
    local_attention,
    partition_attention,
)
from hybrid_mm.ops.mirrored_attention import mirrored_attention
from hybrid_mm.ops.mixed_shift import mixed_shift
from hybrid_mm.ops.normalised_attention import flat_tables, logit_moments
from hybrid_mm.ops.positions import (
    interpolate,
    resize_bias_table,
    resize_decomposed_table,
    resize_position_embedding,
    resize_relative_table,
    resize_window_table,
)
from hybrid_mm.ops.separable_attention import separable_attention
from hybrid_mm.ops.sliced_attention import sliced_attention


class HostCopies(Bodies):
    """Notes the operators that read a tensor of the host for a result on the GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def call(self, func, args, kwargs):
        out = func(*args, **kwargs)
        outs, given = tensors(out), tensors((args, kwargs))
        if any(x.is_cuda for x in outs) and any(x.device.type == 'cpu' and x.ndim for x in given):
            self.found.append(func.name())
        return out


# what raises with torch.use_deterministic_algorithms on a GPU, as its documentation says
REFUSED = {
    'aten::_adaptive_avg_pool2d_backward',
    'aten::adaptive_max_pool2d_backward',
    'aten::grid_sampler_2d_backward',
    'aten::put_',
    'aten::reflection_pad1d_backward',
    'aten::reflection_pad2d_backward',
    'aten::upsample_bicubic2d_backward',
    'aten::upsample_bilinear2d_backward',
    'aten::upsample_linear1d_backward',
}


class Names(Bodies):
    """Notes what is called."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def call(self, func, args, kwargs):
        self.found.add(func._schema.name)
        return func(*args, **kwargs)


def tensors(values):
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def rand(*shape):
    return torch.randn(shape, device='cuda', requires_grad=True)


def maps(heads=2, d=8, size=(7, 6)):
    return [rand(2, heads, *size, d) for _ in range(3)]


def relative(rows, columns, d=8):
    return dict(rel_h=rand(1, rows, d), rel_w=rand(2, columns, d))


def cases():
    """Operator -> the name whose algorithms it has, and a function of ``impl``."""
    local, partition = 'local_attention', 'partition_attention'
    grid = (4, 2, 1, 2, 4)
    return {
        'windows': (local, lambda impl: local_attention(
            *maps(), 3, bias=rand(2, 5, 5), **relative(5, 5), impl=impl)),
        'dilated windows': (local, lambda impl: local_attention(
            *maps(), 5, dilation=3, bias=rand(1, 9, 9), impl=impl)),
        'windows with zeros': (local, lambda impl: local_attention(
            *maps(), 3, border='zero', **relative(3, 3), impl=impl)),
        'windows with a mask': (local, lambda impl: local_attention(
            *maps(), 5, border='mask', bias=rand(2, 5, 5), impl=impl)),
        'windows with stride': (local, lambda impl: local_attention(
            rand(2, 2, 4, 3, 8), *maps()[1:], 3, stride=2, border='reflect', impl=impl)),
        'mirrored windows': (local, lambda impl: mirrored_attention(
            *maps(), rand(7, 6, 8), 3, impl=impl)),
        'blocks': (local, lambda impl: block_attention(
            *maps(), 4, 1, **relative(11, 11), impl=impl)),
        'whole maps': (local, lambda impl: global_attention(
            *maps(), bias=rand(2, 13, 11), **relative(13, 11), impl=impl)),
        'partitions': (partition, lambda impl: partition_attention(
            *maps(), 4, shift=1, bias=rand(2, 7, 7), impl=impl)),
        'grids': (partition, lambda impl: partition_attention(
            *maps(), 4, grid=True, bias=rand(2, 7, 7), impl=impl)),
        'decomposed': ('decomposed_attention', lambda impl: decomposed_attention(
            *maps(), rand(13, 8), rand(11, 8), impl=impl)),
        'distance': ('distance_attention', lambda impl: distance_attention(
            *maps(), rand(2, 7, 6), impl=impl)),
        'evolving': ('evolving_attention', lambda impl: evolving_attention(
            *maps(), rand(13, 8), rand(11, 8), rand(2, 2, 42, 42), rand(2, 2, 3, 3), rand(2),
            impl=impl)),
        'ghost': ('ghost_attention', lambda impl: ghost_attention(
            rand(2, 3, 7, 6), rand(2, 2, 7, 6), rand(18, 3), rand(18), heads=2, kernel_size=3,
            impl=impl)),
        'vector': ('vector_attention', lambda impl: vector_layer(impl)(rand(2, 2, 7, 6))),
        'vector, tiny maps': ('vector_attention', lambda impl: vector_layer(impl)(
            rand(2, 2, 1, 2))),
        'mixed shift': ('mixed_shift', lambda impl: mixed_shift(
            rand(2, 3, 2, 7, 6), rand(5, 3), None, rand(8, 5, 3, 3), impl=impl)),
        'learned queries': ('learned_query_attention', lambda impl: learned_query_attention(
            rand(2, 2, 2, 7, 6), rand(2, 2, 7, 6), rand(2, 2, 3, 3), rand(2, 2, 3, 3),
            impl=impl)),
        'convolution': ('grid_convolution', lambda impl: grid_convolution(
            rand(2, 2, 7, 6), rand(2, 5, 5), [1] * 5, impl=impl)),
        'grid convolution': ('grid_convolution', lambda impl: grid_convolution(
            rand(2, 2, 7, 6), rand(2, 5, 5), grid, impl=impl)),
        'separable': ('separable_attention', lambda impl: separable_attention(
            rand(2, 7, 6, 3), rand(2, 5, 7), rand(2, 3, 6), rand(2, 7, 3), impl=impl)),
        'sliced': (None, lambda: sliced_attention(
            rand(2, 7, 6, 3), rand(2, 5, 7), rand(2, 3, 6), rand(7, 6))),
        'filter': ('global_filter', lambda impl: global_filter(
            rand(2, 2, 7, 6), rand(2, 4, 3, 2), impl)),
        'lambda': (None, lambda: lambda_attention(
            rand(2, 8, 7, 6), rand(2, 4, 7, 6), rand(2, 6, 7, 6), rand(4, 1, 5, 5), rand(4))),
        'normalised': (None, lambda: (
            logit_moments(*maps()[:2], rand(13, 8), rand(11, 8)), flat_tables(rand(4, 9), 5))),
        'norm': (None, norm),
        'positions': (None, lambda: (
            resize_relative_table(rand(2, 9, 4), 7), resize_decomposed_table(rand(9, 4), 7),
            resize_position_embedding(rand(1, 10, 4), (4, 5), 1, 'bicubic'),
            resize_bias_table(rand(2, 9, 9), (7, 6)), resize_window_table(rand(2, 9, 9), 7))),
    }  # fmt: skip


def vector_layer(impl):
    with torch.device('cuda'):
        return PairwiseAttention2d(2, 2, 4, 2, 3, impl=impl)


def norm():
    with torch.device('cuda'):
        layer = nn.BatchNorm2d(3)
    parts = [(rand(3), rand(3)) for _ in range(2)]
    return normalisation(layer, lambda: merged_statistics(parts, (4, 6)))


def runs():
    found = []
    for name, (operator, function) in cases().items():
        for impl in choices(operator) if operator else (None,):
            # a kernel for CPUs, and tiles as of 'tiled' in other sizes
            if (operator, impl) != ('grid_convolution', 'fused') and impl != 'measured':
                found.append(pytest.param(function, impl, id=f'{name} {impl}' if impl else name))
    return found


@pytest.mark.parametrize(('function', 'impl'), runs())
def test_a_second_call_copies_nothing_from_the_host(function, impl, monkeypatch):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    with fake_cuda(), kernels.recorded(lambda launch: None):
        for _ in range(2):
            with HostCopies() as copies:
                backward(function(*() if impl is None else (impl,)))
    assert not copies.found


def test_copies_are_noticed():
    with fake_cuda(), HostCopies() as copies:
        x, index = rand(3), torch.tensor([0, 2])
        x.new_tensor([1.0, 2.0])
        x.index_select(0, index.to(x.device))
        x[index]
        x + torch.tensor(1.0)
    assert len(copies.found) == 3


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('name', cases())
def test_gradients_can_be_deterministic(name, monkeypatch, deterministic):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    operator, function = cases()[name]
    with fake_cuda(), kernels.recorded(lambda launch: None), Names() as names:
        backward(function('auto') if operator else function())
    assert not names.found & REFUSED


@pytest.mark.parametrize('mode', ['linear', 'bicubic', 'bilinear'])
def test_operators_that_would_raise_are_noticed(mode):
    shape = (2, 3, 5) if mode == 'linear' else (2, 3, 5, 5)
    size = 7 if mode == 'linear' else (7, 7)
    with fake_cuda(), Names() as names:
        backward(interpolate(rand(*shape), size, mode, align_corners=False))
    assert len(names.found & REFUSED) == 1
