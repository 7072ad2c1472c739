"""The four large-kernel attention operators."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.layers import DecomposedLKA, build_large_kernel_attention, decompose_kernel

NAMES = ['lka', 'lska', 'lka_trivial', 'lska_trivial']


@pytest.mark.parametrize(
    ('kernel_size', 'expected'),
    [(7, (3, 3, 2)), (11, (3, 5, 2)), (23, (5, 7, 3)), (35, (5, 11, 3)), (41, (5, 13, 3)),
     (53, (5, 17, 3)), (65, (5, 21, 3))],
)  # fmt: skip
def test_decompose_kernel(kernel_size, expected):
    assert decompose_kernel(kernel_size) == expected


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kernel_size', [7, 11, 23, 35, 41, 53, 65])
def test_parameters_follow_the_formula(name, kernel_size):
    c = 6
    a, b, _ = decompose_kernel(kernel_size)
    k = kernel_size
    weights = {
        'lka': c * (a * a + b * b) + 2 * c,
        'lska': c * (2 * a + 2 * b) + 4 * c,
        'lka_trivial': c * k * k + c,
        'lska_trivial': 2 * c * k + 2 * c,
    }[name]
    module = build_large_kernel_attention(name, c, kernel_size)
    assert sum(p.numel() for p in module.parameters()) == weights + c * c + c


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kernel_size', [7, 23, 53])
def test_receptive_field_is_the_nominal_one(name, kernel_size):
    """The centre sees exactly a square of the nominal size (k = a + d(b - 1) in the table)."""
    module = build_large_kernel_attention(name, 1, kernel_size).double()
    for p in module.parameters():
        torch.nn.init.ones_(p)
    size = kernel_size + 10
    x = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(module(x)[0, 0, size // 2, size // 2], x)
    rows, cols = (grad[0, 0].abs() > 1e-9 * grad.max()).nonzero().T  # a transform rounds
    half = kernel_size // 2
    assert rows.min() == cols.min() == size // 2 - half
    assert rows.max() == cols.max() == size // 2 + half


def _naive(module, x, dilated):
    """Padded, shifted and summed by hand, in the official order."""
    steps = [n for n, _ in module.named_children() if n != 'pointwise']
    a = x
    for name in steps:
        conv = getattr(module, name)
        kh, kw = conv.kernel_size
        d = dilated if name.startswith('dilated') else 1
        ph, pw = d * (kh // 2), d * (kw // 2)
        padded = F.pad(a, (pw, pw, ph, ph))
        out = conv.bias.view(1, -1, 1, 1).expand_as(a).clone()
        for i in range(kh):
            for j in range(kw):
                window = padded[..., i * d : i * d + a.shape[2], j * d : j * d + a.shape[3]]
                out += conv.weight[:, 0, i, j].view(1, -1, 1, 1) * window
        a = out
    mixed = torch.einsum('oc,nchw->nohw', module.pointwise.weight[:, :, 0, 0], a)
    return (mixed + module.pointwise.bias.view(1, -1, 1, 1)) * x


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('size', [(9, 14), (1, 1), (3, 40)])
def test_equals_the_definition(name, size):
    torch.manual_seed(0)
    module = build_large_kernel_attention(name, 4, 11).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    torch.testing.assert_close(module(x), _naive(module, x, dilated=2), rtol=1e-12, atol=1e-12)


def test_free_dilation():
    module = build_large_kernel_attention('lska', 2, 101, dilation=4)
    assert module.dilated_h.kernel_size == (1, 25)
    assert module(torch.rand(1, 2, 5, 6)).shape == (1, 2, 5, 6)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('lka', 4, 21), 'no default dilation.*23'),
        (('lska', 4, 24, 3), 'even width 8'),
        (('lka', 4, 23, 0), 'dilation must be positive'),
        (('lka_trivial', 4, 8), 'odd'),
        (('lska_trivial', 4, 7, 2), 'no dilated kernel'),
        (('slak', 4, 7, 2), 'no dilated kernel'),
        (('slak', 4, 8), 'odd'),
        (('lkka', 4, 7), "unknown attention 'lkka'.*lska"),
    ],
)
def test_bad_arguments_are_named(args, message):
    with pytest.raises(ValueError, match=message):
        build_large_kernel_attention(*args)


def test_order_of_the_convolutions():
    """Local before dilated, rows before columns, as the published weights were trained."""
    orders = {
        'lka': ['local', 'dilated'],
        'lska': ['local_h', 'local_v', 'dilated_h', 'dilated_v'],
        'lka_trivial': ['full'],
        'lska_trivial': ['full_h', 'full_v'],
    }
    for name, order in orders.items():
        module, called = build_large_kernel_attention(name, 2, 11), []
        for part, conv in module.named_children():
            conv.register_forward_hook(lambda *_, part=part, to=called: to.append(part))
        module(torch.rand(1, 2, 5, 6))
        assert called == [*order, 'pointwise']


@pytest.mark.parametrize('kernel_size', [5, 11])
def test_kernels_of_slak_are_one_kernel(kernel_size):
    """Stripes and small kernel are a k x k kernel with zeros in its corners."""
    torch.manual_seed(0)
    module = build_large_kernel_attention('slak', 4, kernel_size).double()
    kernel = torch.zeros(4, 1, kernel_size, kernel_size, dtype=torch.float64)
    middle = slice(kernel_size // 2 - 2, kernel_size // 2 + 3)
    kernel[..., middle] += module.tall.weight
    kernel[:, :, middle] += module.wide.weight
    bias = module.tall.bias + module.wide.bias
    assert (module.small is None) == (kernel_size == 5)
    if module.small is not None:
        kernel[:, :, middle, middle] += module.small.weight
        bias = bias + module.small.bias
    x = torch.randn(2, 4, 9, 14, dtype=torch.float64)
    mixed = module.pointwise(F.conv2d(x, kernel, bias, padding=kernel_size // 2, groups=4))
    torch.testing.assert_close(module(x), mixed * x, rtol=1e-12, atol=1e-12)


def test_width_of_the_stripes():
    module = DecomposedLKA(2, 9, width=3)
    kernels = {name: part.kernel_size for name, part in module.named_children()}
    assert kernels == dict(tall=(9, 3), wide=(3, 9), small=(3, 3), pointwise=(1, 1))


def test_kernels_of_one_tap():
    """The smallest odd kernel: a product of channels mixed at every pixel."""
    x = torch.rand(1, 2, 4, 5)
    for name in ('lka_trivial', 'lska_trivial'):
        assert build_large_kernel_attention(name, 2, 1)(x).shape == x.shape
        with pytest.raises(ValueError, match='kernel_size must be positive, got -1'):
            build_large_kernel_attention(name, 2, -1)
