import itertools

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.layers import LKA, DilatedDepthwiseConv2d
from hybrid_mm.ops import depthwise_convolution as module
from hybrid_mm.ops.depthwise_convolution import depthwise_convolution
from hybrid_mm.ops.grid_convolution import fused

SIZES = [(23, 17), (9, 9), (4, 30), (1, 1), (50, 33)]
KERNELS = [((7, 7), (3, 3)), ((5, 5), (1, 1)), ((1, 7), (1, 3)), ((7, 1), (3, 1)), ((3, 5), (4, 2))]


def defined(x, weight, bias, dilation):
    """From the definition, a shifted map for each tap."""
    out = 0 if bias is None else bias[:, None, None]
    reach = [d * (k // 2) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]))
    height, width = x.shape[2:]
    for i, j in itertools.product(*map(range, weight.shape[2:])):
        rows, columns = i * dilation[0], j * dilation[1]
        part = padded[:, :, rows : rows + height, columns : columns + width]
        out = out + weight[:, 0, i, j, None, None] * part
    return out


def results(function, *tensors, needs=(True, True, True)):
    leaves = [
        None if t is None else t.detach().requires_grad_(need)
        for t, need in zip(tensors, needs, strict=True)
    ]
    out = function(*leaves)
    torch.manual_seed(7)
    grad = torch.randn(out.shape).half().to(out.dtype)
    wanted = [t for t in leaves if t is not None and t.requires_grad]
    return out.detach(), *torch.autograd.grad(out, wanted, grad)


def case(size, kernel, dtype=torch.float64):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, *size, dtype=dtype), torch.randn(3, 1, *kernel, dtype=dtype)
    return x, weight, torch.randn(3, dtype=dtype)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('kernel', 'dilation'), KERNELS)
@pytest.mark.parametrize('impl', ['auto', 'reference'])
def test_equals_the_definition(size, kernel, dilation, impl):
    tensors = case(size, kernel)
    expected = results(lambda *t: defined(*t, dilation), *tensors)
    found = results(lambda *t: depthwise_convolution(*t, dilation, impl), *tensors)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        alone = depthwise_convolution(*tensors, dilation, impl)
    torch.testing.assert_close(alone, expected[0])


@pytest.mark.parametrize('needs', [*itertools.product([True, False], repeat=3)])
def test_gradients_that_are_needed(needs):
    if not any(needs):
        return
    tensors, dilation = case((9, 12), (7, 7)), (3, 3)
    expected = results(lambda *t: defined(*t, dilation), *tensors, needs=needs)
    found = results(lambda *t: depthwise_convolution(*t, dilation), *tensors, needs=needs)
    torch.testing.assert_close(found, expected)


def test_without_bias_and_without_a_compiler(monkeypatch):
    for kernel, dilation in KERNELS:
        x, weight, _ = case((8, 13), kernel)
        tensors = x, weight, None
        expected = results(lambda *t, d=dilation: defined(*t, d), *tensors)
        with monkeypatch.context() as patch:
            patch.setattr(fused, 'is_available', lambda x: False)
            found = results(lambda *t, d=dilation: depthwise_convolution(*t, d), *tensors)
            with pytest.raises(RuntimeError, match='needs a CPU and a C compiler'):
                depthwise_convolution(*tensors, dilation, 'fused')
        torch.testing.assert_close(found, expected)
        found = results(lambda *t, d=dilation: depthwise_convolution(*t, d), *tensors)
        torch.testing.assert_close(found, expected)


@pytest.mark.skipif(not fused.is_available(torch.ones(1)), reason='no C compiler here')
def test_what_is_computed_in_c(monkeypatch):
    """With dilation along rows, and small kernels on large maps; else gradients of many taps."""
    called = []
    call = fused._call
    monkeypatch.setattr(
        fused, '_call', lambda name, *args: called.append(name) or call(name, *args)
    )
    both = ['forward', 'weight_gradient']
    for kernel, dilation, forward, backward in (
        ((7, 7), (3, 3), ['forward'], both),
        ((1, 7), (1, 3), ['forward'], both),
        ((7, 1), (3, 1), [], both),
        ((5, 5), (1, 1), [], both),
        ((3, 3), (1, 1), [], []),
        ((1, 5), (1, 1), [], []),
        ((1, 1), (3, 3), [], []),
    ):
        tensors = case((8, 8), kernel)
        with torch.no_grad():
            depthwise_convolution(*tensors, dilation)
        assert called == forward, kernel
        called.clear()
        results(lambda *t, d=dilation: depthwise_convolution(*t, d), *tensors)
        assert called == forward + backward, kernel
        called.clear()
    for size, kernel, forward in (
        ((40, 40), (3, 3), ['forward']),
        ((39, 41), (3, 3), []),
        ((40, 40), (1, 5), []),
        ((40, 40), (5, 5), []),
    ):
        depthwise_convolution(*case(size, kernel))
        assert called == forward, (size, kernel)
        called.clear()


def test_half_precision_sums_up_in_float32():
    dtype = torch.float16
    x, weight, bias = case((20, 20), (7, 7), dtype)
    found = results(lambda *t: depthwise_convolution(*t, (3, 3)), x, weight, bias)
    exact = (t.double() for t in (x, weight, bias))
    expected = results(lambda *t: defined(*t, (3, 3)), *exact)
    eps = torch.finfo(dtype).eps
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).norm() < eps * b.norm()


def test_autocast_and_memory_formats():
    x, weight, bias = (t.float() for t in case((10, 14), (7, 7)))
    with torch.autocast('cpu', torch.bfloat16):
        for impl in ('auto', 'reference'):
            assert depthwise_convolution(x, weight, bias, (3, 3), impl).dtype == torch.bfloat16
    expected = depthwise_convolution(x, weight, bias, (3, 3))
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([x, x], 3)[..., :14],
    ):
        found = depthwise_convolution(other.requires_grad_(), weight, bias, (3, 3))
        assert found.stride() == torch.empty_like(other).stride()
        torch.testing.assert_close(found, expected)


def test_compiled_and_traced_and_counted(monkeypatch):
    layer, x = LKA(4).double(), torch.randn(2, 4, 12, 15, dtype=torch.float64, requires_grad=True)
    expected = results(lambda x: layer(x), x, needs=(True,))
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(results(lambda x: compiled(x), x, needs=(True,)), expected)
    graph = str(torch.jit.trace(layer, x).inlined_graph)
    assert 'hybrid_mm::' not in graph and graph.count('aten::_convolution') == 3


def test_wrong_arguments():
    x, weight = torch.ones(1, 2, 8, 8), torch.ones(2, 1, 3, 3)
    for given in (x[0], weight), (x, weight[:1]), (x, weight[..., :2]), (x, weight[:, 0]):
        with pytest.raises(ValueError, match='odd height and width, got x'):
            depthwise_convolution(*given)
    for dilation in (0, 1), (2,):
        with pytest.raises(ValueError, match='two numbers of at least 1'):
            depthwise_convolution(x, weight, None, dilation)
    with pytest.raises(ValueError, match='impl must be one of auto, reference, fused'):
        depthwise_convolution(x, weight, impl='fast')
    with pytest.raises(ValueError, match=r'kernel_size must be odd, got \(3, 4\)'):
        DilatedDepthwiseConv2d(3, (3, 4), 2)
    with pytest.raises(ValueError, match='impl must be one of'):
        DilatedDepthwiseConv2d(3, 3, 2, impl='fast')


def test_layer_is_torchs_with_its_weights():
    for kernel, dilation in KERNELS:
        ours = DilatedDepthwiseConv2d(3, kernel, dilation).double()
        padding = [d * (k // 2) for d, k in zip(dilation, kernel, strict=True)]
        plain = torch.nn.Conv2d(3, 3, kernel, 1, padding, dilation, 3).double()
        plain.load_state_dict(ours.state_dict())
        x = torch.randn(2, 3, 11, 8, dtype=torch.float64)
        torch.testing.assert_close(ours(x), plain(x))
    assert DilatedDepthwiseConv2d(3, 5, bias=False).bias is None
    assert module._axis(7, 3, 7).groups == tuple((module.Block(0, o),) for o in (-6, -3, 0, 3, 6))
