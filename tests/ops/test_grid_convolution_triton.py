"""Kernels of depthwise convolutions in Triton's interpreter, and what GPUs are asked to do."""

import random
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('triton', minversion='3.2')

from hybrid_mm.benchmarks.gpu_counts.engine import backward
from hybrid_mm.benchmarks.gpu_counts.fake_cuda import Bodies, fake_cuda
from hybrid_mm.ops import autotune, kernels
from hybrid_mm.ops.dispatch import choices
from hybrid_mm.ops.grid_convolution import grid_convolution, launches, reference

DEV = Path(__file__).resolve().parents[2] / 'tools' / 'dev'
sys.path.insert(0, str(DEV))
try:
    import offline
finally:
    sys.path.remove(str(DEV))

TYPES = torch.float32, torch.float16, torch.bfloat16
LIMIT = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
KERNELS = {'copy', 'windows', 'product', 'weight_product', 'add_up'}
PELK = [2, 1, 1, 1, 2], [9, 8, 4, 2, 1, 1, 1, 1, 1, 2, 4, 8, 9]


def exact(x, weight, grad, rows, columns):
    """Result and gradients in double precision, of the weights that a product in the type has."""
    weight = weight.to(x.dtype)
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    out = reference.convolve(x, weight, rows, columns)
    return out, *torch.autograd.grad(out, (x, weight), grad.double())


def check(x, weight, rows, columns, grad=None):
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = grid_convolution(x, weight, rows, columns, 'triton')
    grad = torch.randn(out.shape).to(out.dtype) if grad is None else grad
    found = out, *torch.autograd.grad(out, (x, weight), grad)
    assert [t.dtype for t in found] == [x.dtype, x.dtype, torch.float32]
    assert found[0].stride() == found[1].stride() == torch.empty_like(x).stride()
    for a, b in zip(found, exact(x, weight, grad, rows, columns), strict=True):
        assert (a.double() - b).abs().max() <= LIMIT[x.dtype] * b.abs().max()


@pytest.fixture(params=[False, True], ids=['', 'TF32'])
def tf32(request):
    """Without and with permission to round float32 numbers, which the interpreter does not do."""
    torch.backends.cuda.matmul.allow_tf32 = request.param
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture
def small(interpreter, monkeypatch):
    """Sums over few patches are divided into parts already."""
    monkeypatch.setattr(launches, '_TERMS', 3)


def widths(rng, size):
    """Groups of taps that add up to an odd size."""
    if rng.random() < 0.5:
        return [1] * size
    found = []
    while sum(found) < size:
        found.append(rng.randint(1, min(5, size - sum(found))))
    return found


def laid_out(rng, n, c, h, w, dtype):
    """Random maps whose strides are those of views that networks make."""

    def maps(*shape):
        return torch.randn(shape).to(dtype)

    kind = rng.choice(['plain', 'channels last', 'channels', 'columns', 'transposed'])
    if kind == 'channels last':
        return maps(n, h, w, c).permute(0, 3, 1, 2)
    if kind == 'channels':
        return maps(n, c + 3, h, w)[:, 1 : c + 1]
    if kind == 'columns':
        return maps(n, c, h, w + 5)[..., 2 : w + 2]
    return maps(n, c, w, h).mT if kind == 'transposed' else maps(n, c, h, w)


def check_drawn(seed, dtype):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    most = 2 if dtype == torch.float32 else 4  # tap by tap, the interpreter is slow
    rows, columns = (widths(rng, 2 * rng.randint(0, most) + 1) for _ in range(2))
    channels = rng.randint(1, 3)
    shape = rng.randint(1, 2), channels, rng.randint(1, 9), rng.randint(1, 40)
    weight = torch.randn(channels + 1, len(columns), len(rows))[1:].mT
    x, grad = (laid_out(rng, *shape, dtype) for _ in range(2))
    check(x, weight, rows, columns, grad)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('seed', range(5))
def test_random_convolutions(seed, dtype, small):
    check_drawn(seed, dtype)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('seed', range(100, 160))
def test_more_random_convolutions(seed, dtype, small):
    check_drawn(seed, dtype)


@pytest.mark.parametrize(
    'rows, columns, shape',
    [
        ([1] * 31, [1] * 31, (1, 1, 20, 40)),  # RepLKNet
        ([1] * 51, [1] * 5, (1, 1, 40, 16)),  # SLaK, rows and columns are swapped
        ([1] * 5, [1] * 51, (1, 1, 5, 40)),
        (PELK[1], PELK[1], (1, 1, 5, 60)),
        ([3], [51], (1, 1, 3, 9)),  # one weight
        ([3, 2, 1, 2, 1], PELK[0], (2, 1, 4, 33)),  # mirrored, it is another kernel
        (PELK[1], PELK[1], (1, 1, 1, 1)),  # all taps but one leave the map
        ([1], [1], (1, 2, 3, 17)),
    ],
)
def test_kernels_of_the_papers(rows, columns, shape, interpreter):
    torch.manual_seed(0)
    check(torch.randn(shape).half(), torch.randn(shape[1], len(rows), len(columns)), rows, columns)


def test_kernels_in_float32(tf32, small):
    torch.manual_seed(0)
    check(torch.randn(1, 2, 5, 20), torch.randn(2, 5, 3), PELK[0], [3, 1, 3])


def test_gradients_of_sums(interpreter):
    """The gradient of a sum is one number, expanded."""
    x, weight = torch.randn(1, 2, 5, 19).half(), torch.randn(2, 5, 3)
    check(x, weight, [1] * 5, [1] * 3, torch.ones(1).half().expand(x.shape))


@pytest.mark.parametrize('dtype', TYPES[:2])
def test_no_images(dtype, interpreter):
    x, weight = torch.randn(0, 2, 5, 9).to(dtype).requires_grad_(), torch.randn(2, 3, 3)
    out = grid_convolution(x, weight.requires_grad_(), [1] * 3, impl='triton')
    out.sum().backward()
    assert out.shape == x.grad.shape == x.shape
    assert weight.grad.eq(0).all()


def test_gradients_that_nobody_needs(interpreter):
    x, weight = torch.randn(1, 2, 3, 9).half(), torch.randn(2, 3, 3)
    seen = []
    with kernels.recorded(seen.append):
        for needs in ((True, False), (False, True)):
            inputs = [
                t.clone().requires_grad_(need) for t, need in zip((x, weight), needs, strict=True)
            ]
            grid_convolution(*inputs, [1] * 3, impl='triton').sum().backward()
            assert [t.grad is not None for t in inputs] == list(needs)
            seen.append('|')
    names = [x if x == '|' else x.kernel.fn.__name__ for x in seen]
    first = names[: names.index('|')]
    assert 'weight_product' not in first and first.count('product') == 2
    assert names[len(first) :].count('product') == 1


class Launches(Bodies):
    """Notes kernels of Triton and calls of torch that would start one."""

    def __init__(self):
        super().__init__()
        self.names = []

    def call(self, func, args, kwargs):
        name = func.overloadpacket.__name__
        if name not in ('device', 'empty_like', 'new_empty', 'empty', 'detach', 'transpose'):
            self.names.append(name)
        return func(*args, **kwargs)


def started(function, *args):
    """Names of what a function starts on a GPU, and its result."""
    seen = Launches()
    with seen, kernels.recorded(lambda launch: seen.names.append(launch.kernel.fn.__name__)):
        out = function(*args)
    return seen.names, out


PLAIN31, STRIPE = ([1] * 31, [1] * 31), ([1] * 51, [1] * 5)


@pytest.mark.parametrize('dtype', TYPES[:2])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize(
    'rows, columns', [PLAIN31, STRIPE, (PELK[1], PELK[1])], ids=['31', '51x5', 'PeLK 51']
)
def test_few_launches_and_no_copies(rows, columns, channels_last, dtype, monkeypatch):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    with fake_cuda():
        x = torch.empty(2, 64, 50, 76, device='cuda', dtype=dtype)
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        x.requires_grad_()
        weight = torch.empty(64, len(rows), len(columns), device='cuda', requires_grad=True)

        for _ in range(2):  # tables are made by the first
            x.grad = weight.grad = None
            with torch.autocast('cuda', torch.float16):
                forward, out = started(grid_convolution, x, weight, rows, columns)
            back, _ = started(backward, out, torch.empty_like(out))
        grads = x.grad, weight.grad
    casts = int(dtype == torch.float32)  # of x by autocast, and of its gradient
    assert forward.count('_to_copy') == back.count('_to_copy') == casts
    assert len(forward) <= 3 + casts
    assert len(back) <= 6 + casts
    assert set(forward + back) <= KERNELS | {'_to_copy'}
    assert out.dtype == torch.float16
    assert [t.dtype for t in grads] == [dtype, torch.float32]
    assert out.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert grads[0].stride() == x.stride()


def test_what_auto_takes_on_a_gpu(monkeypatch):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    measured = []
    monkeypatch.setattr(
        autotune, 'choose', lambda _, __, found, ___: measured.append([*found]) or 'fft'
    )
    with fake_cuda():
        x = torch.empty(1, 2, 60, 60, device='cuda')

        def names(size, half=True, impl='auto'):
            weight = torch.empty(2, size, size, device='cuda')
            maps = x.half() if half else x
            return started(lambda: grid_convolution(maps, weight, [1] * size, impl=impl))[0]

        assert 'convolution' in names(7)
        assert 'product' in names(9)
        assert 'direct' in names(9, half=False)
        assert '_fft_r2c' in names(101, half=False)
        assert not measured
        monkeypatch.setattr(kernels, '_failed', {'grid_convolution'})
        assert '_fft_r2c' in names(9)
        assert 'convolution' in names(7)
        assert measured == [['fft', 'reference']]
        with pytest.raises(RuntimeError, match=r"impl='fused' .* CPUs, got x on cuda"):
            names(9, impl='fused')
        for impl in choices('grid_convolution')[1:4]:
            assert names(9, impl=impl)


class Types(Bodies):
    """Notes the types that torch's convolutions multiply."""

    def __init__(self):
        super().__init__()
        self.types = []

    def call(self, func, args, kwargs):
        if 'convolution' in func.overloadpacket.__name__:
            self.types += {x.dtype for x in args[:3] if isinstance(x, torch.Tensor)}
        return func(*args, **kwargs)


@pytest.mark.parametrize('half', [False, True])
def test_small_kernels_are_convolutions_as_any_other(half):
    """cuDNN sums up in single precision, and gives what autocast makes of a convolution."""
    with fake_cuda():
        weight = torch.empty(2, 3, 3, device='cuda', requires_grad=True)
        x = torch.empty(1, 2, 9, 9, device='cuda', dtype=torch.half if half else None)
        with Types() as seen, torch.autocast('cuda', torch.half, enabled=not half):
            out = grid_convolution(x, weight, [1] * 3)
        with seen:
            backward(out)
    assert out.dtype == torch.half
    assert seen.types == [torch.half] * 2
    assert weight.grad.dtype == torch.float32


def test_a_kernel_that_fails_leaves_its_place_to_transforms(monkeypatch):
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    monkeypatch.setattr(kernels, '_failed', set())

    def fails(*args):
        raise RuntimeError('out of registers')

    monkeypatch.setattr(launches, 'forward', fails)
    monkeypatch.setattr(launches, 'backward', fails)
    with fake_cuda():
        x = torch.empty(1, 2, 9, 9, device='cuda', dtype=torch.half, requires_grad=True)
        weight = torch.empty(2, 9, 9, device='cuda', requires_grad=True)
        seen = Launches()
        with seen, pytest.warns(UserWarning, match='could not be compiled or started'):
            backward(grid_convolution(x, weight, [1] * 9))
    assert seen.names.count('_fft_r2c') == 6
    assert weight.grad.dtype == torch.float32


def test_compiles_with_kernels(interpreter):
    x, weight = torch.randn(1, 2, 5, 9, 1).half()[..., 0], torch.randn(2, 3, 3)

    def function(x, weight):
        return grid_convolution(x.mul(2), weight, [1] * 3, impl='triton').mul(2)

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    assert torch.equal(compiled(x, weight), function(x, weight))


@pytest.mark.parametrize('width', [64, 40, 37])
def test_operands_are_read_in_vectors(width, monkeypatch):
    """The compiler must see that rows and windows begin at vectors: 16 bytes go at once."""
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    found = []
    with fake_cuda(), Bodies(), kernels.recorded(found.append):
        x = torch.empty(2, 16, 24, width, device='cuda', dtype=torch.half, requires_grad=True)
        weight = torch.empty(16, 31, 31, device='cuda', requires_grad=True)
        backward(grid_convolution(x, weight, [1] * 31))
    products = {x.kernel.fn.__name__: x for x in found if 'product' in x.kernel.fn.__name__}
    assert len(products) == 2
    for launch in products.values():
        program = offline.program(launch, 'sm_80')
        target = offline.GPUTarget('cuda', 80, 32)
        code = offline.compile_source(program.source, target, program.options).asm['ptx']
        assert 'cp.async.cg.shared.global' in code
        assert 'ld.global' not in code


def test_images_of_other_sizes_compile_little(monkeypatch):
    """Whether 16 divides a number of patches or rows makes no other program."""
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE, raising=False)
    found = []
    with fake_cuda(), Bodies(), kernels.recorded(found.append):
        for height, width in ((120, 160), (136, 192), (160, 224), (180, 256), (200, 304)):
            for dtype in TYPES[:2]:
                x = torch.empty(2, 16, height, width, device='cuda', dtype=dtype).requires_grad_()
                weight = torch.empty(16, 13, 13, device='cuda', requires_grad=True)
                backward(grid_convolution(x, weight, PELK[1], impl='triton'))
    assert len({offline.program(launch, 'sm_80').key for launch in found}) <= 15
