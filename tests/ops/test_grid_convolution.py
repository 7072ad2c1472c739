import contextlib
import os
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.layers.convolution.depthwise import DepthwiseConv2d
from hybrid_mm.ops import budget, native
from hybrid_mm.ops.grid_convolution import fused, grid_convolution
from hybrid_mm.ops.grid_convolution.axes import expand, grid_axis, sum_by_products, sum_groups

FAST = ('bmm', 'fft', 'fused')
HALVES = {
    7: [1, 1, 1],
    13: [2, 2, 1, 1],
    31: [7, 4, 2, 1, 1],
    47: [7, 8, 4, 2, 1, 1],
    49: [8, 8, 4, 2, 1, 1],
    51: [9, 8, 4, 2, 1, 1],
    67: [16, 8, 4, 2, 1, 1, 1],
    69: [17, 8, 4, 2, 1, 1, 1],
    101: [17, 16, 8, 4, 2, 1, 1, 1],
    151: [42, 16, 8, 4, 2, 1, 1, 1],
}
GRIDS = {size: [*half, 1, *half[::-1]] for size, half in HALVES.items()}


def dense(x, weight, rows, columns):
    """Straight from the definition, with repeated weights."""
    for dim, widths in ((1, rows), (2, columns)):
        weight = weight.repeat_interleave(torch.tensor(widths), dim)
    padding = sum(rows) // 2, sum(columns) // 2
    return F.conv2d(x, weight[:, None], None, 1, padding, groups=len(weight))


def with_gradients(function, x, weight, *args):
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = function(x, weight, *args)
    torch.manual_seed(7)
    grad = torch.randn(out.shape, dtype=out.dtype)
    return (out.detach(), *torch.autograd.grad(out, (x, weight), grad))


def assert_same(found, expected, limit=1e-12):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert (a - b).abs().max() <= limit * b.abs().max()


@pytest.mark.parametrize('size', GRIDS)
@pytest.mark.parametrize('batch, height, width', [(1, 23, 17), (3, 8, 21)])
def test_every_algorithm_equals_the_dense_kernel(size, batch, height, width):
    grid = GRIDS[size]
    x = torch.randn(batch, 3, height, width, dtype=torch.float64)
    if batch == 3:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(3, len(grid), len(grid), dtype=torch.float64)
    expected = with_gradients(dense, x, weight, grid, grid)
    for impl in (*FAST, 'reference', 'auto'):
        assert_same(with_gradients(grid_convolution, x, weight, grid, None, impl), expected)


@pytest.mark.parametrize('impl', FAST)
def test_grids_of_any_kind_and_large_maps(impl):
    cases = [
        ([1, 2, 3, 4, 5, 2, 2], [3, 1, 1, 2], (40, 7)),  # not symmetric, not square
        ([1] * 31, [1] * 5, (9, 70)),  # a stripe
        ([51], [51], (33, 60)),  # one weight
        (GRIDS[51], GRIDS[13], (75, 61)),
        (GRIDS[101], GRIDS[101], (1, 1)),
        ([1], [1], (4, 5)),
    ]
    for rows, columns, (height, width) in cases:
        x = torch.randn(2, 5, height, width, dtype=torch.float64)
        weight = torch.randn(5, len(rows), len(columns), dtype=torch.float64)
        expected = with_gradients(dense, x, weight, rows, columns)
        found = with_gradients(grid_convolution, x, weight, rows, columns, impl)
        assert_same(found, expected)


def test_groups_of_taps_by_hand():
    """Offsets that lead out of the map from everywhere are left out, on either side."""
    wide, small = grid_axis((2, 1, 1, 3), 9), grid_axis((2, 1, 1, 3), 3)
    assert (wide.first, wide.widths, wide.begin, wide.reach) == (0, [2, 1, 1, 3], -3, 3)
    # offsets -3 -2 | -1 | 0 | 1 2 3, of which a map of 3 pixels has -2 to 2
    assert (small.first, small.widths, small.begin, small.reach) == (0, [1, 1, 1, 2], -2, 2)
    inner = grid_axis((2, 1, 1, 3), 2)
    assert (inner.first, inner.part, inner.widths) == (1, slice(1, 4), [1, 1, 1])
    single = grid_axis((2, 1, 1, 3), 1)
    assert (single.part, single.widths, single.begin, single.reach) == (slice(2, 3), [1], 0, 0)
    taps, weight = torch.randn(2, 7, 5), torch.randn(2, 4, 3)
    wide = expand(weight, (2, 1, 1, 3), (1, 3, 1))
    assert torch.equal(wide[:, [0, 1, 2, 4, 6], 2], weight[:, [0, 0, 1, 3, 3], 1])
    sums = sum_groups(taps, (2, 1, 1, 3), (1, 3, 1))
    torch.testing.assert_close((sums * weight).sum(), (taps * wide).sum())
    torch.testing.assert_close(sum_by_products(taps, (2, 1, 1, 3), (1, 3, 1)), sums)


@pytest.mark.parametrize('impl', FAST)
def test_chunks_of_channels(impl):
    grid, x = GRIDS[13], torch.randn(2, 7, 12, 9, dtype=torch.float64)
    weight = torch.randn(7, len(grid), len(grid), dtype=torch.float64)
    expected = with_gradients(dense, x, weight, grid, grid)
    with budget.limited(5000):
        found = with_gradients(grid_convolution, x, weight, grid, None, impl)
    assert_same(found, expected)


@pytest.mark.parametrize('impl', FAST)
def test_every_size_of_a_map(impl):
    """What wraps around in a transform of any length falls on zeros."""
    for length in range(1, 21):
        x = torch.randn(1, 2, length, 3, dtype=torch.float64)
        weight = torch.randn(2, 9, 5, dtype=torch.float64)
        for tall in (True, False):
            groups = [1] * 9, [1] * 5
            if not tall:
                x, weight, groups = x.mT.contiguous(), weight.mT.contiguous(), groups[::-1]
            expected = with_gradients(dense, x, weight, *groups)
            assert_same(with_gradients(grid_convolution, x, weight, *groups, impl), expected)


@pytest.mark.parametrize('impl', (*FAST, 'reference', 'auto'))
def test_autocast_does_not_round(impl):
    x, weight = torch.randn(2, 4, 20, 15), torch.randn(4, 7, 7)
    expected = with_gradients(grid_convolution, x, weight, [1] * 7, None, impl)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = with_gradients(grid_convolution, x, weight, [1] * 7, None, impl)
    assert_same(found, expected, limit=1e-5)


def test_slices_of_channels_need_no_copy_and_get_gradients():
    whole = torch.randn(2, 8, 20, 20, requires_grad=True)
    weight = torch.randn(3, 13, 13)
    out = grid_convolution(whole[:, :3], weight, GRIDS[51], impl='auto')
    (grad,) = torch.autograd.grad(out.sum(), whole)
    assert grad[:, 3:].abs().max() == 0 < grad[:, :3].abs().max()


@pytest.mark.parametrize('impl', FAST)
def test_keeps_one_map_for_the_backward_pass(impl):
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    weight, saved = torch.randn(4, 13, 13, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel()) or t, lambda t: t
    ):
        grid_convolution(x, weight, GRIDS[51], impl=impl)
    assert sum(saved) == x.numel() + weight.numel()


@pytest.mark.parametrize('impl', (*FAST, 'reference'))
@pytest.mark.parametrize('mean', [0, 10])
def test_numbers_in_float32_and_below(impl, mean):
    x, weight = torch.randn(1, 4, 56, 56) + mean, torch.randn(4, 13, 13)
    exact = dense(x.double(), weight.double(), GRIDS[51], GRIDS[51])
    found = grid_convolution(x, weight, GRIDS[51], impl=impl)
    assert (found - exact).abs().max() < 2e-5 * exact.std()
    half = x.bfloat16()
    exact = dense(half.double(), weight.double(), GRIDS[51], GRIDS[51])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = grid_convolution(half, weight, GRIDS[51], impl=impl)
    assert found.dtype == torch.bfloat16
    assert (found - exact).abs().max() < 2**-8 * exact.abs().max()


def test_measuring_inside_of_a_gradient_checkpoint():
    layer = DepthwiseConv2d(3, 21)
    x = torch.randn(1, 3, 22, 18, requires_grad=True)
    out = torch.utils.checkpoint.checkpoint(
        lambda x: layer(x * 2),
        x,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), once()),
    )
    (found,) = torch.autograd.grad(out.sum(), x)
    (expected,) = torch.autograd.grad(layer(x * 2).sum(), x)
    torch.testing.assert_close(found, expected)


@contextlib.contextmanager
def once():
    yield


def test_threads_do_not_change_the_result():
    x, weight = torch.randn(2, 9, 30, 30), torch.randn(9, 13, 13)
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2):
        torch.set_num_threads(number)
        results.append(with_gradients(grid_convolution, x, weight, GRIDS[51], None, 'fused'))
    torch.set_num_threads(threads)
    assert_same(*results, limit=0)


def test_compiles_without_breaks():
    layer = DepthwiseConv2d(6, 31).eval()
    x = torch.randn(1, 6, 20, 20)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize('size', [3, 7, (5, 51)])
def test_depthwise_convolution_has_the_state_of_torch(size):
    ours = DepthwiseConv2d(4, size)
    height, width = ours.kernel_size
    torch_own = torch.nn.Conv2d(4, 4, size, padding=(height // 2, width // 2), groups=4)
    torch_own.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 19, 26)
    torch.testing.assert_close(ours(x), torch_own(x), atol=1e-5, rtol=1e-5)


def test_multiplications_are_counted_per_weight():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 13, 13))

        def forward(self, x):
            return grid_convolution(x, self.weight, GRIDS[51])

    assert complexity(Layer(), (10, 20)) == (3 * 169, 3 * 169 * 200)


def test_wrong_arguments():
    x, weight = torch.ones(1, 2, 8, 8), torch.ones(2, 3, 3)
    with pytest.raises(ValueError, match=r'odd kernel size, got \[1, 2, 1\]'):
        grid_convolution(x, weight, [1, 2, 1])
    with pytest.raises(ValueError, match=r'at least 1.*got \[2, 0, 1\]'):
        grid_convolution(x, weight, [1, 1, 1], [2, 0, 1])
    with pytest.raises(ValueError, match=r'need weight \(C, 3, 5\).*got weight \(2, 3, 3\)'):
        grid_convolution(x, weight, [1] * 3, [1] * 5)
    with pytest.raises(ValueError, match=r"impl must be one of auto, .*, got 'fast'"):
        grid_convolution(x, weight, [1] * 3, impl='fast')
    with pytest.raises(ValueError, match='odd kernel size'):
        DepthwiseConv2d(3, 4)


FALLBACK = """
import torch
from hybrid_mm.ops.grid_convolution import grid_convolution
x, w = torch.randn(1, 2, 9, 9, requires_grad=True), torch.randn(2, 3, 3)
grid_convolution(x, w, [1, 1, 1]).sum().backward()
try:
    grid_convolution(x, w, [1, 1, 1], impl='fused')
except RuntimeError as error:
    print(error)
"""


def fallback(**variables):
    environment = {**os.environ, **variables}
    command = [sys.executable, '-c', FALLBACK]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize('variables', [{'HYBRID_MM_NATIVE': '0'}, {'CC': 'no-such-compiler'}])
def test_without_a_compiler_nothing_is_tried(variables):
    done = fallback(**variables)
    assert "impl='fused' needs a C compiler" in done.stdout
    assert 'could not be compiled' not in done.stderr


def test_without_a_compiler_other_algorithms_run(tmp_path):
    done = fallback(CC='false', XDG_CACHE_HOME=str(tmp_path))
    assert 'grid_convolution.c could not be compiled with' in done.stderr
    assert "impl='fused' needs a C compiler" in done.stdout


@pytest.mark.skipif(not fused.is_available(torch.ones(1)), reason='no C compiler here')
def test_library_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    for _ in range(2):
        native.load.cache_clear()
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert native.load('grid_convolution', torch.float32) is not None
        made = list((tmp_path / 'hybrid_mm' / 'native').iterdir())
        assert len(made) == 1
        times = {path.stat().st_mtime_ns for path in made}
    assert len(times) == 1
    native.load.cache_clear()


@pytest.mark.skipif(not fused.is_available(torch.ones(1)), reason='no C compiler here')
def test_another_processor_gets_a_library_of_its_own(tmp_path, monkeypatch):
    """A home folder may be shared by machines, and kernels are made for the one they run on."""
    compiled = []
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(native, '_compile', lambda command, folder, stem: compiled.append(stem))
    read = native.Path.read_text

    def other(path, *args, **kwargs):
        text = read(path, *args, **kwargs)
        return text.replace('flags', 'flags : none\nflags') if path.name == 'cpuinfo' else text

    for change in (None, other):
        native.load.cache_clear()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # nothing was compiled, so nothing can be loaded
            if change:
                patch.setattr(native.Path, 'read_text', change)
            native.load('grid_convolution', torch.float32)
    native.load.cache_clear()
    assert len(set(compiled)) == 2
