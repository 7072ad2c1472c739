"""Counts on fake CUDA tensors: what is counted, and that the passes are those of autograd."""

import contextlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.benchmarks.gpu_counts import tables
from hybrid_mm.benchmarks.gpu_counts.fake_cuda import fake_cuda, on_fake_cuda
from hybrid_mm.benchmarks.gpu_counts.measure import count_network, count_operator
from hybrid_mm.benchmarks.gpu_counts.operators import Operator
from hybrid_mm.benchmarks.gpu_counts.trace import Trace
from hybrid_mm.ops import kernels
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.kernels import kernel, tl


def counted(function, *shapes, autocast=None):
    """Counts of a function of fake tensors."""
    with fake_cuda():
        inputs = [torch.empty(shape, device='cuda') for shape in shapes]
        trace = Trace(autocast=autocast is not None)
        cast = contextlib.nullcontext()
        if autocast:
            cast = torch.autocast('cuda', dtype=autocast)
        with trace.section() as counts, cast:
            function(*inputs)
    return counts


def test_kernels_and_bytes():
    counts = counted(lambda x, y: (x.view(6) + 1, x.t(), x @ y), (2, 3), (3, 5))
    assert counts.kernels == 2
    assert dict(counts.operators) == dict(add=1, mm=1)
    assert counts.moved == 4 * (6 + 6) + 4 * (6 + 15 + 10)
    assert dict(counts.flops) == dict(single=2 * 2 * 3 * 5)
    # what is expanded is read once; an index reads what it takes
    assert counted(lambda x: x.expand(4, 2, 3) + 1, (2, 3)).moved == 4 * (6 + 24)
    assert counted(lambda x: x.index_select(0, x[:2].long()), (9,)).moved == 12 * 2 + 2 * 8
    assert counted(lambda x, y: x.copy_(y), (7,), (7,)).moved == 2 * 7 * 4
    assert counted(lambda x: x[:0].clone(), (7,)).kernels == 0


def test_peak_of_memory():
    def work(x):
        y = x + 1
        for _ in range(5):
            y = y * 2  # two maps at a time, besides the input
        return y

    assert counted(work, (1000,)).peak == 2 * 4000


def test_copies_to_the_device_and_back():
    counts = counted(lambda x: x + torch.ones(3).to('cuda'), (3,))
    assert sum(counts.to_device.values()) == 1
    # numbers are arguments of a kernel, an index is copied without a word
    assert not counted(lambda x: x + torch.tensor(1.0), (3,)).to_device
    counts = counted(lambda x: x[torch.tensor([0, 1])], (3,))
    assert sum(counts.to_device.values()) == 1
    counts = counted(lambda x: x.cpu(), (3,))
    assert (counts.kernels, sum(counts.to_host.values())) == (0, 1)


@pytest.mark.parametrize('wait', [lambda x: x.sum().item(), lambda x: x[x > 0], torch.nonzero])
def test_waiting_is_noted(wait):
    """Fake tensors cannot go on from there, but it has been seen."""
    with fake_cuda():
        trace, x = Trace(), torch.empty(3, device='cuda')
        with contextlib.suppress(RuntimeError), trace.section() as counts:
            wait(x)
    assert sum(counts.waits.values()) == 1


def test_mixed_devices_are_noted():
    with fake_cuda():
        trace, x = Trace(), torch.empty(3, device='cuda')
        with contextlib.suppress(RuntimeError), trace.section() as counts:
            x + torch.ones(3)
    assert len(counts.mixed) == 1


def test_float32_islands():
    def work(x, y):
        x @ y
        with torch.autocast('cuda', enabled=False):
            x @ y

    counts = counted(work, (2, 3), (3, 5), autocast=torch.float16)
    assert sum(counts.islands.values()) == 2 * 2 * 3 * 5
    assert dict(counts.flops) == dict(half=60, single=60)
    assert not counted(work, (2, 3), (3, 5)).islands


def test_float64_is_noted():
    counts = counted(lambda x: x.double() + 1, (2,))
    assert sum(counts.double.values()) == 2


def table():
    """An array for the device."""
    return [np.arange(3)]


@kernel
def double(x, y, n, BLOCK: tl.constexpr):
    """Never runs here."""


def gradient(grad: Tensor, x: Tensor) -> list[Tensor]:
    """A launch."""
    return [kernels.launched('counted', lambda: launch(grad), lambda: 2 * grad)]


@custom_op('hybrid_mm::counted_double', fake=torch.empty_like, backward=gradient)
def doubled(x: Tensor) -> Tensor:
    """A launch, an operator of torch and a table."""
    on_device(table, device=x.device)
    return kernels.launched('counted', lambda: launch(x) + 0, lambda: 2 * x)


def launch(x):
    """Launch the kernel with its input twice."""
    y = torch.empty_like(x)
    double[(1,)](x, y, x.numel(), BLOCK=16)
    return y


@pytest.mark.skipif(kernels.triton is None, reason='without Triton')
def test_launches_of_triton_inside_of_operators():
    operator = Operator('double', lambda x, y: doubled(x) * y, [(8,)], [(8,)])
    step = count_operator(operator, torch.float16)
    f, b = step.forward, step.backward
    assert (f.launches, f.kernels) == (1, 3)
    assert f.operators['triton double'] == 1
    assert f.moved == (16 + 16) + (16 + 16) + (16 + 32 + 32)  # launch, addition, product
    assert b.launches == 1
    # the first step brings the table to the device, the second one has it
    assert (f.tables, step.repeated, step.total.to_device) == (1, 0, {})
    assert step.ideal == (16 + 32 + 32, 2 * (16 + 32) + 32)
    assert not step.total.wide


@pytest.mark.skipif(kernels.triton is None, reason='without Triton')
def test_float32_maps_of_a_launch_under_autocast_are_an_island():
    operator = Operator('double', lambda x: doubled(x.float()), [(8,)])
    assert sum(count_operator(operator, torch.float16).total.wide.values()) == 2
    assert not count_operator(operator).total.wide


def test_leaves_copy_gradients_of_another_layout():
    def copies(transposed):
        operator = Operator(
            'leaf', lambda w: (w.t() if transposed else w).contiguous() * 2, [], [(3, 5)]
        )
        return count_operator(operator).backward.operators['copy_']

    assert (copies(False), copies(True)) == (0, 1)


@pytest.mark.parametrize('amp', [None, torch.float16, torch.bfloat16])
def test_attention_and_autocast_as_on_cuda(amp):
    with fake_cuda():
        linear, trace = on_fake_cuda(nn.Linear(8, 8)), Trace()
        cast = torch.autocast('cuda', dtype=amp) if amp else contextlib.nullcontext()
        with trace.section() as counts, cast:
            x = linear(torch.empty(2, 1, 5, 8, device='cuda'))
            out = F.scaled_dot_product_attention(x, x, x)
    kind = 'flash' if amp else 'efficient'
    assert counts.operators[f'_scaled_dot_product_{kind}_attention'] == 1
    assert out.dtype == (amp or torch.float32)
    assert not counts.mixed


def test_network_and_tables():
    config = dict(
        type='hybrid_mm.VAN',
        arch=dict(embed_dims=[8, 12, 16, 20], depths=[1, 2, 1, 1], mlp_ratios=[4, 4, 2, 2]),
    )
    step = count_network(config, torch.float16, (2, 3, 64, 64))
    assert step.backward.kernels > step.forward.kernels > 100
    assert tables.problems(step) == []
    row = tables.network_row('VAN', step)
    assert len(row) == len(tables.NETWORK_COLUMNS)
    assert row[:2] == ['VAN', str(step.total.kernels)]
    assert step.seconds('H200') < step.seconds('A100') < step.launch_seconds
    placed = count_network(config, torch.float16, (2, 3, 64, 64), places=True)
    assert placed.total.kernels == step.total.kernels == sum(placed.total.places.values())
    assert any(place.startswith('gradient of layers/') for place in placed.total.places)
