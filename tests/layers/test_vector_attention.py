"""Pairwise and patchwise attention: the chunked form against the published formulation."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.compat.torch_api import as_if_exporting
from hybrid_mm.layers import PairwiseAttention2d, PatchwiseAttention2d
from hybrid_mm.ops import budget
from hybrid_mm.ops.implicit_norm import normalisation
from hybrid_mm.ops.vector_attention import Window
from hybrid_mm.ops.vector_attention.tiled import aggregate_taps

KINDS = pytest.mark.parametrize('kind', [PairwiseAttention2d, PatchwiseAttention2d])


@pytest.fixture
def small_chunks():
    with budget.limited(2000):
        yield


def scrambled(kind, *channels, **kwargs):
    """A module in which neither rates nor running statistics hide a mistake."""
    torch.manual_seed(0)
    module = kind(*channels, **kwargs).double()
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return module


@KINDS
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    ('size', 'kwargs', 'expected'),
    [
        ((9, 11), dict(), (9, 11)),
        ((3, 2), dict(), (3, 2)),  # smaller than the mirrored border
        ((5, 3), dict(), (5, 3)),  # exactly as large
        ((1, 1), dict(), (1, 1)),
        ((8, 9), dict(kernel_size=3, dilation=2), (8, 9)),
        ((9, 8), dict(stride=2), (5, 4)),
        ((7, 9), dict(mix=True, kernel_size=5, stride=2), (4, 5)),
        ((9, 11), dict(mix=True, share=4), (9, 11)),
    ],
)
def test_equals_the_reference(small_chunks, kind, training, size, kwargs, expected):
    module = scrambled(kind, 12, 4, 16, **kwargs).train(training)
    x = torch.randn(2, 12, *size, dtype=torch.float64, requires_grad=True)
    found = []
    for impl in ('tiled', 'reference'):
        one = copy.deepcopy(module)
        one.impl = impl
        if one.mix is not None:
            one.mix.impl = impl
        out = one(x)
        assert out.shape == (2, 16, *expected)
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        grads = torch.autograd.grad(out, [x, *one.parameters()], cotangent)
        found.append([out, *grads, *one.buffers()])
    names = ['out', 'x', *(n for n, _ in module.named_parameters())]
    names += [n for n, _ in module.named_buffers()]
    for name, a, b in zip(names, *found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)


@KINDS
@pytest.mark.parametrize('size', [(9, 11), (3, 2), (1, 1), (8, 17)])
@pytest.mark.parametrize(
    'kwargs', [dict(), dict(kernel_size=3, dilation=2), dict(stride=2, kernel_size=5, mix=True),
               dict(stride=3, dilation=2, kernel_size=3)],
)  # fmt: skip
def test_exported_form_equals_the_reference(kind, size, kwargs):
    module = scrambled(kind, 12, 4, 16, share=4, impl='reference', **kwargs).eval()
    x = torch.randn(2, 12, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = module(x)
        with as_if_exporting():
            found = module(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@KINDS
def test_reference_is_the_definition(kind):
    """Loops over pixels, channels and taps, with channels that share a weight by c mod G."""
    module = scrambled(kind, 6, 2, 12, share=4, kernel_size=3, dilation=2, impl='reference').eval()
    x = torch.randn(1, 6, 5, 4, dtype=torch.float64)
    height, width = x.shape[2:]
    out = module(x)
    q, k, v = (conv(x)[0] for conv in (module.query_conv, module.key_conv, module.value_conv))
    weights = module.reference_weights(q[None], k[None])[0].unflatten(2, (height, width))

    def mirror(i, size):
        i = abs(i)
        return 2 * (size - 1) - i if i >= size else i

    for row in range(height):
        for column in range(width):
            for channel in range(12):
                total = 0
                for tap in range(9):
                    y = mirror(row + 2 * (tap // 3 - 1), height)
                    z = mirror(column + 2 * (tap % 3 - 1), width)
                    total += weights[channel % 3, tap, row, column] * v[channel, y, z]
                torch.testing.assert_close(out[0, channel, row, column], total)


def test_pairwise_weights_sum_to_one_and_patchwise_weights_need_not():
    x = torch.randn(1, 12, 6, 6, dtype=torch.float64)
    sums = {}
    for kind in (PairwiseAttention2d, PatchwiseAttention2d):
        module = scrambled(kind, 12, 4, 16).eval()
        sums[kind] = module.reference_weights(module.query_conv(x), module.key_conv(x)).sum(2)
    torch.testing.assert_close(sums[PairwiseAttention2d], torch.ones(1, 2, 36).double())
    assert (sums[PatchwiseAttention2d] - 1).abs().max() > 0.1


def test_aggregation_is_differentiable_and_traceable(opcheck):
    torch.manual_seed(0)
    weights = torch.randn(2, 2, 9, 3, 2, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 6, 9, 7, dtype=torch.float64, requires_grad=True)
    opcheck(aggregate_taps, (weights, values, 3, 2, 2))
    torch.autograd.gradcheck(aggregate_taps, (weights, values, 3, 2, 2))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_aggregation_sums_up_in_single_precision(dtype):
    torch.manual_seed(0)
    weights, values = torch.rand(1, 1, 49, 4, 4).to(dtype), torch.rand(1, 2, 10, 10).to(dtype)
    out = aggregate_taps(weights, values, 7, 1, 1)
    exact = aggregate_taps(weights.double(), values.double(), 7, 1, 1)
    assert out.dtype == dtype
    assert (out - exact).abs().max() <= torch.finfo(dtype).eps / 2 * exact.max()


@KINDS
def test_keeps_no_taps(kind):
    """All that is kept for the backward pass is a small multiple of values and result."""
    module = kind(32, 2, 8, share=8)
    x = torch.randn(1, 32, 40, 48, requires_grad=True)
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(x)
    one_map = 8 * 40 * 48 * 4
    assert sum(kept.values()) < 10 * one_map + 32 * 40 * 48 * 4
    kept.clear()
    module.impl = 'reference'
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(x)
    assert sum(kept.values()) > 49 * one_map


@pytest.mark.parametrize(('size', 'kernel', 'dilation'), [((5, 7), 3, 1), ((1, 4), 5, 2)])
def test_moments_of_all_taps_at_once(size, kernel, dilation):
    torch.manual_seed(0)
    window = Window(kernel, 1, dilation)
    padded = (s + dilation * (kernel - 1) for s in size)
    k = torch.randn(2, 3, *padded, dtype=torch.float64, requires_grad=True)
    found = []
    for moments in (window.moments, window.pooled_moments):
        var, mean = moments(k + 3, torch.Size(size))
        (grad,) = torch.autograd.grad((var + mean.square()).square().sum(), k)
        found.append([var, mean, grad])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('momentum', [0.1, None])
def test_normalisation_is_that_of_torch(momentum):
    torch.manual_seed(0)
    ours, theirs = (nn.BatchNorm2d(3, momentum=momentum) for _ in range(2))
    for x in torch.randn(3, 4, 3, 5, 5) * 2 + 7:
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        scale, shift = normalisation(ours, lambda v=var, m=mean: (v, m, 100))
        affine = x * scale[:, None, None] + shift[:, None, None]
        torch.testing.assert_close(affine, theirs(x), rtol=1e-4, atol=1e-5)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        normalisation(ours, lambda: (torch.zeros(3), torch.zeros(3), 1))


class _Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def _normalise(rank, folder):
    """A process with its part of the images: scale and shift from the statistics of all."""
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    norm = nn.SyncBatchNorm(3).double()
    nn.init.constant_(norm.weight, 0.7)
    part = _images()[slice(0, 2) if rank == 0 else slice(2, 7)]
    var, mean = torch.var_mean(part, (0, 2, 3), correction=0)
    with _Names() as names:
        affine = normalisation(norm, lambda: (var, mean, part.shape[0] * 20))
    # a GPU would wait for a number that the host reads, and for one that it gives
    assert not {'aten::_local_scalar_dense', 'aten::lift_fresh'} & names.seen
    torch.save([*(t.detach() for t in affine), *norm.buffers()], f'{folder}/{rank}.pt')
    groups = [dist.new_group([other]) for other in (0, 1)]
    alone = nn.SyncBatchNorm(3, process_group=groups[rank]).double()
    own = normalisation(alone, lambda: (var, mean, part.shape[0] * 20))
    expected = (var + 1e-5).rsqrt()
    torch.testing.assert_close([*own], [expected, -mean * expected])
    # a value of each process is enough, if there are two of them
    one = nn.SyncBatchNorm(1).double()
    values = torch.tensor([float(rank)], dtype=torch.float64)
    scale, _ = normalisation(one, lambda: (torch.zeros_like(values), values, 1))
    torch.testing.assert_close(scale, (torch.tensor([0.25]).double() + 1e-5).rsqrt())
    dist.barrier()
    dist.destroy_process_group()


def _images():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, 4, 5, dtype=torch.float64, generator=generator)
    return x * torch.arange(1, 8).view(7, 1, 1, 1) + 3


def test_normalisation_over_processes_with_unequal_shares(tmp_path, in_two_processes):
    in_two_processes(_normalise, tmp_path)
    norm = nn.BatchNorm2d(3).double()
    nn.init.constant_(norm.weight, 0.7)
    x = _images()
    expected = norm(x)
    for rank in (0, 1):
        scale, shift, *buffers = torch.load(tmp_path / f'{rank}.pt')
        found = x * scale[:, None, None] + shift[:, None, None]
        torch.testing.assert_close(found, expected)
        for a, b in zip(buffers, norm.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(kernel_size=4), 'kernel_size must be odd, got 4'),
        (dict(share=5), 'out_channels must be a multiple of share'),
        (dict(mix=True, rel_channels=3), 'with mix of rel_channels'),
        (
            dict(impl='fast'),
            'impl must be one of auto, reference, tiled, triton for vector_attention',
        ),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PairwiseAttention2d(**(dict(in_channels=8, rel_channels=4, out_channels=16) | kwargs))
