import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.benchmarks.core import memory
from hybrid_mm.layers.attention.pooling_attention import PoolingAttention
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.layers.relative_position import DecomposedPosition2d
from hybrid_mm.ops import budget, kernels
from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.dispatch import default_impl
from hybrid_mm.ops.local_attention import fused as local_fused


def tensors(shapes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


CASES = {
    'finer queries': (2, 3, (13, 18), (7, 9), 8, 4, (25, 35)),
    'finer keys': (2, 2, (4, 5), (8, 10), 4, 8, (15, 19)),
    'one grid, tables of another': (1, 2, (9, 7), (9, 7), 6, 6, (5, 21)),
    'one pixel': (1, 1, (1, 1), (1, 1), 2, 2, (1, 1)),
    'uneven ratio': (3, 2, (25, 19), (7, 5), 4, 4, (49, 37)),
}


@pytest.mark.parametrize('impl', ['auto', 'tiled', 'fused'])
@pytest.mark.parametrize('case', CASES)
def test_agrees_with_the_published_formulation(case, impl):
    """In several steps, the last ones not full."""
    n, heads, queries, keys, d, d_v, lengths = CASES[case]
    inputs = tensors(
        [
            (n, heads, *queries, d),
            (n, heads, *keys, d),
            (n, heads, *keys, d_v),
            (lengths[0], d),
            (lengths[1], d),
        ]
    )
    results = []
    for name in (impl, 'reference'):
        with budget.limited(3000):
            out = decomposed_attention(*inputs, scale=0.3, impl=name)
            upper = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
            results.append((out, *torch.autograd.grad(out, inputs, upper)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_logit_is_that_of_equation_4():
    q, k, v, rel_h, rel_w = tensors(
        [(1, 1, 4, 6, 3), (1, 1, 2, 3, 3), (1, 1, 2, 3, 3), (7, 3), (11, 3)]
    )
    for impl in ('auto', 'tiled', 'fused', 'reference'):
        for given, scale in ((None, 3**-0.5), (0.3, 0.3)):
            out = decomposed_attention(q, k, v, rel_h, rel_w, scale=given, impl=impl)
            for y, x in ((0, 0), (3, 2), (1, 5)):
                query = q[0, 0, y, x]
                logits = torch.stack(
                    [
                        scale * query @ k[0, 0, i, j]
                        + query @ rel_h[y - 2 * i + 2]
                        + query @ rel_w[x - 2 * j + 4]
                        for i in range(2)
                        for j in range(3)
                    ]
                )
                expected = logits.softmax(0) @ v[0, 0].flatten(0, 1)
                torch.testing.assert_close(out[0, 0, y, x], expected)


def saved_elements(function):
    """Elements of all tensors that a function keeps for the backward pass, each counted once."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        function()
    return sum(kept.values())


def test_keeps_no_logits():
    inputs = tensors([(1, 1, 32, 32, 4), (1, 1, 32, 32, 4), (1, 1, 32, 32, 4), (63, 4), (63, 4)])
    tiled, reference = (
        saved_elements(lambda impl=impl: decomposed_attention(*inputs, impl=impl))
        for impl in ('tiled', 'reference')
    )
    assert tiled < 32**2 * 32  # q, k, v: 12 per pixel, tables by query and key: 8 per pixel
    assert reference > 32**4


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('impl', ['auto', 'tiled', 'fused'])
def test_half_precision(dtype, impl):
    shapes = [(2, 2, 8, 8, 8), (2, 2, 4, 4, 8), (2, 2, 4, 4, 8), (15, 8), (15, 8)]
    inputs = tensors(shapes, torch.float32)
    expected = decomposed_attention(*inputs, impl='reference')
    with torch.autocast('cpu', dtype=dtype):
        out = decomposed_attention(*inputs, impl=impl)
    assert out.dtype == dtype
    assert (out - expected).norm() < 0.03 * expected.norm()
    grads = torch.autograd.grad(out.float().sum(), inputs)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)


def test_large_logits_in_half_precision_do_not_overflow():
    """Products above 65504: the largest key wins, and gradients stay finite."""
    q = torch.zeros(1, 1, 2, 3, 64, dtype=torch.half)
    q[..., 0] = 1000
    k = torch.zeros_like(q)
    k[..., 0] = 100 * torch.arange(1, 7).view(2, 3)
    v = torch.arange(6, dtype=torch.half).view(1, 1, 2, 3, 1).expand(-1, -1, -1, -1, 64)
    q.requires_grad_()
    rel = torch.zeros(3, 64, dtype=torch.half), torch.zeros(5, 64, dtype=torch.half)
    out = decomposed_attention(q, k, v.contiguous(), *rel, scale=1.0, impl='tiled')
    assert (out == 5).all()
    assert torch.autograd.grad(out.float().sum(), q)[0].isfinite().all()


def pooled_plainly(layer, x):
    """The published formulation of pooling: head by head, one map after the other."""
    n, height, width, _ = x.shape
    maps = layer.qkv(x).view(n, height, width, 3, layer.heads, -1).permute(3, 0, 4, 5, 1, 2)
    result = []
    for name, each, stride in zip('qkv', maps, layer.strides, strict=True):
        weight = getattr(layer, f'pool_{name}').weight
        y = torch.nn.functional.conv2d(
            each.flatten(0, 1), weight, None, stride, 1, groups=layer.width
        )
        y = getattr(layer, f'norm_{name}')(y.permute(0, 2, 3, 1))
        result.append(y.unflatten(0, (n, -1)).permute(0, 2, 3, 1, 4).flatten(3))
    return result


@pytest.mark.parametrize('strides', [(1, 1), (1, 4), (2, 1), (2, 2)])
def test_pooling_of_all_heads_at_once(strides):
    torch.manual_seed(0)
    layer = PoolingAttention(6, 8, 2, (8, 8), *strides).double()
    for module in layer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight)
    x = torch.randn(2, 9, 7, 6, dtype=torch.float64)
    for ours, expected in zip(layer.pool(layer.qkv(x)), pooled_plainly(layer, x), strict=True):
        torch.testing.assert_close(ours, expected)


def test_windows_do_not_see_each_other():
    torch.manual_seed(0)
    layer = PoolingAttention(4, 4, 1, (8, 8), window=4).double()
    layer.pool_q.weight.data.zero_()[:, :, 1, 1] = 1  # no pooling across the border
    for pool in (layer.pool_k, layer.pool_v):
        pool.weight.data.zero_()[:, :, 1, 1] = 1
    x = torch.randn(1, 8, 8, 4, dtype=torch.float64)
    out, changed = layer(x), layer(x.index_fill(1, torch.arange(4, 8), 0.5))
    assert torch.equal(out[:, :4], changed[:, :4])
    assert not torch.allclose(out[:, 4:], changed[:, 4:])


def test_errors():
    q, k, v, rel_h, rel_w = tensors(
        [(1, 1, 4, 4, 3), (1, 1, 2, 2, 3), (1, 1, 2, 2, 3), (7, 3), (7, 3)]
    )
    with pytest.raises(
        ValueError,
        match="tiled, fused, triton for decomposed_attention, got 'x'",
    ):
        decomposed_attention(q, k, v, rel_h, rel_w, impl='x')
    with pytest.raises(ValueError, match='q, k and v must be'):
        decomposed_attention(q, k, v[:, :, :1], rel_h, rel_w)
    with pytest.raises(ValueError, match=r'must be \(length, 3\)'):
        decomposed_attention(q, k, v, rel_h[:, :2], rel_w)
    with pytest.raises(ValueError, match='multiple of the strides 1 of queries and 4 of keys'):
        PoolingAttention(4, 4, 1, (8, 8), 1, 4, window=6)
    with pytest.raises(ValueError, match='heads must divide the 4 channels, got 3'):
        PoolingAttention(4, 4, 3, (8, 8))
    with pytest.raises(ValueError, match='queries must be positive'):
        DecomposedPosition2d((0, 1), (0, 1), 4)


def test_tables_are_those_of_the_window_or_of_the_map():
    whole, windows = SelfAttention(8, 2, (6, 5)), SelfAttention(8, 2, (6, 5), window=4)
    assert (whole.relative.rel_h.shape, whole.relative.rel_w.shape) == ((11, 4), (9, 4))
    assert (windows.relative.rel_h.shape, windows.relative.rel_w.shape) == ((7, 4), (7, 4))
    pooled = PoolingAttention(8, 8, 2, (8, 12), 2, 4)
    assert (pooled.relative.rel_h.shape, pooled.relative.rel_w.shape) == ((7, 4), (11, 4))


@pytest.mark.parametrize('window', [None, 3])
@pytest.mark.parametrize('size', [None, (4, 5)])
def test_attention_of_tokens_by_loops(size, window):
    """Windows with zeros that carry the bias of the projection and take part."""
    torch.manual_seed(0)
    layer = SelfAttention(6, 2, size, window).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    height, width = 4, 5
    x = torch.randn(2, 20, 6, dtype=torch.float64)
    tall, wide = (height, width) if window is None else (6, 6)
    maps = torch.nn.functional.pad(
        x.view(2, height, width, 6), (0, 0, 0, wide - width, 0, tall - height)
    )
    q, k, v = layer.qkv(maps).view(2, tall, wide, 3, 2, 3).permute(3, 0, 4, 1, 2, 5)
    out = torch.zeros(2, height, width, 2, 3, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            first, last = (
                ((0, 0), (tall, wide))
                if window is None
                else ((i // 3 * 3, j // 3 * 3), (i // 3 * 3 + 3, j // 3 * 3 + 3))
            )
            keys = [(a, b) for a in range(first[0], last[0]) for b in range(first[1], last[1])]
            logits = []
            for a, b in keys:
                query = q[:, :, i, j]
                logit = (query * k[:, :, a, b]).sum(-1) * 3**-0.5
                if size is not None:
                    rows, columns = (4, 5) if window is None else (3, 3)
                    logit = logit + query @ layer.relative.rel_h[i - a + rows - 1]
                    logit = logit + query @ layer.relative.rel_w[j - b + columns - 1]
                logits.append(logit)
            weights = torch.stack(logits, -1).softmax(-1)
            there = torch.stack([v[:, :, a, b] for a, b in keys], 2)
            out[:, i, j] = torch.einsum('nht,nhtd->nhd', weights, there)
    expected = layer.proj(out.flatten(3)).flatten(1, 2)
    torch.testing.assert_close(layer(x, (height, width)), expected)


def test_logits_exist_for_some_rows_at_a_time():
    inputs = tensors(
        [(2, 4, 48, 40, 4), (2, 4, 24, 20, 4), (2, 4, 24, 20, 4), (95, 4), (79, 4)], torch.float32
    )
    logits = 2 * 4 * 48 * 40 * 24 * 20 * 4  # bytes of all, 29 MB
    peak, _ = memory(lambda: decomposed_attention(*inputs), torch.device('cpu'))
    assert peak < logits / 4


class Called(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ('device', 'dtype', 'keys', 'd_v', 'name'),
    [
        ('cpu', torch.float32, 14, 64, 'tiled_attention'),
        ('cpu', torch.bfloat16, 14, 64, 'tiled_attention'),
        ('cpu', torch.float32, 7, 64, 'decomposed_attention'),
        ('cuda', torch.float16, 14, 64, 'triton_attention'),
        ('cuda', torch.float32, 14, 64, 'decomposed_attention'),  # too wide for registers
        ('cuda', torch.bfloat16, 14, 64, 'triton_attention'),
        ('cuda', torch.float16, 14, 257, 'decomposed_attention'),
        ('cuda', torch.float32, 7, 64, 'decomposed_attention'),
        ('cuda', torch.float16, 7, 64, None),
        ('cuda', torch.float16, 96, 64, None),  # 64 + 96 + 96 = 256, which torch's kernels take
        ('cuda', torch.float16, 97, 64, 'decomposed_attention'),
    ],
)
def test_choice_of_the_algorithm(device, dtype, keys, d_v, name):
    """Our kernels or torch's fused attention, as far as grids and widths go."""
    if name == 'tiled_attention' and not local_fused.is_available(torch.empty(0)):
        name = 'decomposed_attention'
    if name == 'triton_attention' and kernels.triton is None:
        pytest.skip('without Triton')
    with FakeTensorMode():
        q = torch.empty(1, 2, 14, 14, 64, dtype=dtype, device=device)
        k, v = (torch.empty(1, 2, keys, keys, n, dtype=dtype, device=device) for n in (64, d_v))
        rel = torch.empty(2 * max(keys, 14) - 1, 64, device=device)
        with Called() as called:
            out = decomposed_attention(q, k, v, rel, rel)
    assert out.shape == (*q.shape[:-1], d_v)
    ours = {called for called in called.names if called.startswith('hybrid_mm')}
    assert ours == ({f'hybrid_mm.{name}.default'} if name else set())


@pytest.mark.parametrize('length', [0, 2])
def test_kernels_of_local_attention(interpreter, length):
    """Tables of the map or of another one, an uneven map, widths of no power of two."""
    n, heads, height, width, d = 1, 2, 3, 5, 6
    rows, columns = 2 * height - 1 + length, 2 * width - 1 + length
    maps = [(n, heads, height, width, d)] * 2 + [(n, heads, height, width, 12)]
    inputs = tensors([*maps, (rows, d), (columns, d)], torch.float32)
    results = []
    for name in ('triton', 'reference'):
        out = decomposed_attention(*inputs, scale=0.3, impl=name)
        upper = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        results.append((out, *torch.autograd.grad(out, inputs, upper)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_kernels_need_keys_on_the_grid_of_the_queries(interpreter):
    q, k, v, rel = tensors([(1, 1, 4, 4, 8), (1, 1, 2, 2, 8), (1, 1, 2, 2, 8), (7, 8)])
    with pytest.raises(RuntimeError, match="impl='triton' needs keys on the grid of the queries"):
        decomposed_attention(q, k, v, rel, rel, impl='triton')
    expected = decomposed_attention(q, k, v, rel, rel)
    with default_impl('triton'):  # of those operators that can
        torch.testing.assert_close(decomposed_attention(q, k, v, rel, rel), expected)
