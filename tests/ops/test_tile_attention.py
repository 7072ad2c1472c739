"""Tiles of attention in C; that they are the definition, test_local_attention checks as well."""

import itertools

import pytest
import torch

from hybrid_mm.ops.dispatch import default_impl
from hybrid_mm.ops.distance_attention import distance_attention
from hybrid_mm.ops.inference_cache import InferenceCache
from hybrid_mm.ops.local_attention import (
    block_attention,
    fused,
    global_attention,
    local_attention,
    partition_attention,
)
from hybrid_mm.ops.local_attention.axes import BORDERS
from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType, Tables
from hybrid_mm.ops.native import load

KERNEL = fused
pytestmark = pytest.mark.skipif(
    load('tile_attention', torch.float64) is None, reason='no C compiler here'
)


def maps(height, width, dim=4, value_dim=3, heads=2, images=2, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = ((images, heads, height, width, d) for d in (dim, dim, value_dim))
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def windows(size, **options):
    axis = AxisPattern(size, **{'border': 'shift', **options})
    return Pattern(PatternType.WINDOW, axis, axis)


def with_gradients(function, tensors, **options):
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = function(*leaves, **options)
    return out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), leaves)


def check(function, tensors, **options):
    found = with_gradients(function, tensors, **options)
    expected = with_gradients(function, tensors, impl='reference', **options)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('border', BORDERS)
@pytest.mark.parametrize('dilation', [1, 2])
def test_bands_side_by_side(border, dilation, threads, called, monkeypatch):
    """Several threads work on a map; gradients of keys that two bands see are sums of both."""
    monkeypatch.setattr(fused, '_BAND', 1)
    options = dict(border=border, dilation=dilation)
    check(
        lambda q, k, v, bias, rel_h, **impl: local_attention(
            q, k, v, 5, bias=bias, rel_h=rel_h, **options, **impl
        ),
        [
            *maps(41, 9, images=1, heads=1),
            torch.randn(1, 9, 9, dtype=torch.float64),
            torch.randn(1, 9, 4, dtype=torch.float64),
        ],
    )
    assert called == ['forward', 'backward']


@pytest.mark.parametrize(
    ('border', 'dilation', 'band', 'expected'),
    [('shift', 1, 1, False), ('shift', 1, 2, True), ('shift', 2, 1, False), ('zero', 3, 2, True),
     ('mask', 1, 4, True), ('reflect', 1, 4, False)],
)  # fmt: skip
def test_which_bands_may_run_side_by_side(border, dilation, band, expected):
    """Those two apart share no key: 4 rows of queries see 8 rows of keys."""
    pattern = windows(5, dilation=dilation, border=border)
    rows, _ = fused._axes(pattern, 40, 40, 16)
    assert rows.apart(band) == expected


def test_threads_do_not_change_results_from_run_to_run(threads):
    torch.manual_seed(0)
    tensors = [*maps(19, 14, images=3, heads=3, dtype=torch.float32), torch.randn(3, 13, 13)]

    def attend(q, k, v, bias):
        return local_attention(q, k, v, 7, bias=bias)

    first = with_gradients(attend, tensors)
    for _ in range(10):
        again = with_gradients(attend, tensors)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize('dims', [(1, 1), (7, 5), (16, 33), (40, 64)])
@pytest.mark.parametrize('heads', [1, 3])
def test_any_number_of_channels(dims, heads, threads, called):
    """Also of tables that heads share, and of heads that a thread has done one after the other."""
    tensors = maps(9, 10, *dims, heads=3)
    tables = [torch.randn(heads, 27, dims[0], dtype=torch.float64) for _ in range(2)]
    check(
        lambda q, k, v, h, w, **impl: block_attention(q, k, v, 4, 2, rel_h=h, rel_w=w, **impl),
        [*tensors, *tables],
    )
    bias = torch.randn(heads, 11, 9, dtype=torch.float64)
    for options in (dict(), dict(shift=2), dict(grid=True)):
        check(
            lambda q, k, v, b, **more: partition_attention(q, k, v, (4, 3), bias=b, **more),
            [*tensors, bias],
            **options,
        )
    assert called == ['forward', 'backward'] * 4


@pytest.mark.parametrize('scale', [0.3, 30.0, 3000.0])
def test_single_precision(scale, called):
    """The exponential function is our own there."""
    tensors = maps(12, 20, 32, 32, dtype=torch.float32)
    bias = torch.randn(2, 13, 13)

    def attend(q, k, v, bias, **impl):
        return local_attention(q, k, v, 7, scale=scale, bias=bias, **impl)

    found = with_gradients(attend, [*tensors, bias])
    exact = [x.double() for x in (*tensors, bias)]
    expected = with_gradients(attend, exact, impl='reference')
    assert called == ['forward', 'backward']
    if scale > 100:  # gradients are next to nothing
        found, expected = found[:1], expected[:1]
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < max(1e-6, 1e-6 * scale) * b.norm()


def test_hidden_keys_do_not_count(called):
    """Huge keys outside of the windows change nothing."""
    q, k, v = maps(9, 33, dtype=torch.float32)
    expected = local_attention(q, k, v, 3)
    k[:, :, :, 20:], v[:, :, :, 20:] = 1e30, 1e30
    assert torch.equal(local_attention(q, k, v, 3)[:, :, :, :19], expected[:, :, :, :19])
    dilated = local_attention(q, k, v, 3, dilation=2)[:, :, :, :17]
    again = local_attention(q, k, v, 3, dilation=2, impl='reference')[:, :, :, :17]
    torch.testing.assert_close(dilated, again)
    assert len(called) == 3


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_no_number_is_seen(value):
    """In single precision too, where the exponential function is our own."""
    q, k, v = maps(6, 6, dtype=torch.float32)
    q[0, 0, 2, 3, 1] = value
    out = local_attention(q, k, v, 3)
    assert out[0, 0, 2, 3].isnan().all()
    out[0, 0, 2, 3] = 0
    assert out.isfinite().all()


def test_a_bias_may_hide_keys():
    q, k, v = maps(6, 6, dtype=torch.float32)
    bias = torch.randn(2, 5, 5)
    bias[:, 2, 3] = -float('inf')
    found = local_attention(q, k, v, 3, bias=bias)
    torch.testing.assert_close(found, local_attention(q, k, v, 3, bias=bias, impl='reference'))


def test_half_precision_and_strides(called):
    q, k, v = maps(8, 18, 8, 8, dtype=torch.float16)
    found = local_attention(q, k, v, 5)
    expected = local_attention(*(x.double() for x in (q, k, v)), 5, impl='reference')
    assert found.dtype == torch.float16
    assert (found - expected).norm() < 1e-3 * expected.norm()
    planes = [x.movedim(4, 2).contiguous().movedim(2, 4) for x in (q, k, v)]
    assert torch.equal(local_attention(*planes, 5), found)
    one = torch.randn(1, 1, 1, 1, 8)
    spread = one.expand(2, 3, 9, 9, 8)  # strides of 0
    torch.testing.assert_close(local_attention(spread, spread, spread, 3), spread)
    assert len(called) == 3


def test_what_it_leaves_to_others(called, monkeypatch):
    """Tiles that see very many keys, tables that would not stay in the cache, other types."""
    q, k, v = maps(28, 29, 2, 2, heads=1, images=1)
    global_attention(q[..., :28, :], k[..., :28, :], v[..., :28, :])
    assert called == ['forward']
    global_attention(q, k, v)
    partition_attention(q, k, v, (28, 29))
    assert called == ['forward']
    bias = torch.zeros(1, 5, 5, dtype=torch.float64)
    for limit, calls in ((10**3, 1), (10**5, 2)):
        monkeypatch.setattr(fused, '_MOST_BYTES', limit)
        local_attention(q, k, v, 3, bias=bias)
        assert len(called) == calls
    monkeypatch.setenv('HYBRID_MM_NATIVE', '0')
    load.cache_clear()
    local_attention(q, k, v, 3)
    assert len(called) == 2
    load.cache_clear()


def test_memory_that_is_missing(monkeypatch):
    class Library:
        lanes = staticmethod(lambda: 16)
        forward = backward = staticmethod(lambda *_: 0)

    q, k, v = maps(3, 3)
    monkeypatch.setattr(fused, '_library', lambda q: Library)
    with pytest.raises(MemoryError, match='no memory for the working space'):
        fused.forward(q, k, v, Tables(), 1.0, windows(3))
    with pytest.raises(MemoryError, match='no memory for the working space'):
        fused.backward(v, q, k, v, Tables(), 1.0, windows(3))


class Layer(torch.nn.Module):
    """A table of biases by distance, in a network that keeps what it makes of it."""

    def __init__(self, heads, size):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(heads, *size))
        self.cache = InferenceCache()

    def forward(self, q, k, v, stride=1, impl='auto'):
        with self.cache.of(self):
            return distance_attention(q, k, v, self.table, stride, impl, self)


@pytest.fixture
def prepared(monkeypatch):
    """Filled with the sizes of maps whose biases are laid out."""
    made = []
    plain = fused.Prepared.__init__
    monkeypatch.setattr(
        fused.Prepared,
        '__init__',
        lambda self, *a: made.append(tuple(a[1].shape[2:4])) or plain(self, *a),
    )
    return made


@pytest.mark.parametrize(('size', 'stride'), [((14, 14), 1), ((7, 9), 2), ((1, 5), 1)])
def test_biases_that_are_laid_out_once(size, stride, threads, prepared):
    """In inference, for any number of images; the output's heads lie side by side."""
    torch.manual_seed(0)
    layer = Layer(3, size)
    for images in (1, 3):
        q, k, v = maps(*size, 5, 18, heads=3, images=images, dtype=torch.float32)
        q = q[:, :, ::stride, ::stride]
        with torch.no_grad():
            found = layer(q, k, v, stride)
            with default_impl('reference'):
                expected = layer(q, k, v, stride)
        torch.testing.assert_close(found, expected)
        assert found.permute(0, 2, 3, 1, 4).is_contiguous()
        packed = torch.randn(images, *size, 3, 28)  # as a linear layer gives them
        q, k, v = (x.permute(0, 3, 1, 2, 4) for x in packed.split([5, 5, 18], 4))
        q = q[:, :, ::stride, ::stride]
        with torch.no_grad():
            torch.testing.assert_close(
                layer(q, k, v, stride), layer(q, k, v, stride, impl='reference')
            )
    assert prepared == [size]


def test_biases_that_are_laid_out_follow_the_table(prepared):
    layer = Layer(2, (6, 6))
    q, k, v = maps(6, 6, dtype=torch.float32)
    with torch.no_grad():
        first = layer(q, k, v)
        layer.table.mul_(3)
        torch.testing.assert_close(layer(q, k, v), layer(q, k, v, impl='reference'))
        assert not torch.allclose(layer(q, k, v), first)
        for type_ in (torch.float64, torch.float16):  # of the inputs
            found = layer(*(x.to(type_) for x in (q, k, v)))
            assert found.dtype == type_
            torch.testing.assert_close(found.float(), layer(q, k, v), rtol=2e-3, atol=2e-3)
    assert len(prepared) == 2
    out = layer(*(x.requires_grad_() for x in (q, k, v)))
    torch.autograd.grad(out.sum(), layer.table)
    assert len(prepared) == 2


def test_biases_that_are_too_many_are_not_laid_out(prepared, monkeypatch):
    monkeypatch.setattr(fused, '_MOST_KEYS', 30)
    layer = Layer(2, (6, 6))
    q, k, v = maps(6, 6, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(layer(q, k, v), layer(q, k, v, impl='reference'))
    assert not prepared


def test_every_number_of_keys_in_a_row(called):
    """Products of up to 12 keys at once are compiled one by one."""
    for width, stride in itertools.product((1, 2, 3, 5, 9, 11, 12, 13, 25), (1, 2)):
        height = 3
        q, k, v = maps(height, width)
        q = q[:, :, ::stride, ::stride]
        check(lambda q, k, v, **impl: global_attention(q, k, v, stride=stride, **impl), [q, k, v])  # noqa: B023
    assert len(called) == 2 * 18
