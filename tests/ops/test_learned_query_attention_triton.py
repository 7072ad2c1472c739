"""Kernels of learned queries in Triton's interpreter, against the reference in float64."""

import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.ops.learned_queries import learned_query_attention
from hybrid_mm.ops.learned_queries import triton as query_triton

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
NAMES = 'out', 'scores', 'values', 'bias', 'scale'


def draw_inputs(n, size, width, heads, queries, kernel, dtype, tokens):
    """Scores stay in single precision, as the layer has them."""
    torch.manual_seed(0)
    scores = torch.randn(n, queries, heads, *size) * 3
    values = torch.randn(n, heads * width, *size).to(dtype)
    if tokens:
        values = values.contiguous(memory_format=torch.channels_last)
        scores = scores.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    tables = (torch.randn(queries, heads, kernel, kernel) for _ in range(2))
    return [scores, values, *tables]


def with_gradients(inputs, cotangent, stride, impl):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = learned_query_attention(*inputs, stride=stride, impl=impl)
    return out, *torch.autograd.grad(out, inputs, cotangent.to(out.dtype))


def check(n, size, width, heads, queries, kernel, stride, dtype, tokens):
    inputs = draw_inputs(n, size, width, heads, queries, kernel, dtype, tokens)
    shape = n, heads * width, *((s - 1) // stride + 1 for s in size)
    cotangent = torch.randn(shape).to(dtype)
    found = with_gradients(inputs, cotangent, stride, 'triton')
    expected = with_gradients([x.double() for x in inputs], cotangent, stride, 'reference')
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.dtype == (dtype if name in ('out', 'values') else torch.float32)
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=0.1)
        assert error < TOLERANCE[dtype], f'{name}: {error:.1e}'


@pytest.mark.parametrize(
    ('n', 'size', 'width', 'heads', 'queries', 'kernel', 'stride', 'dtype', 'tokens'),
    [
        (2, (5, 7), 3, 2, 2, 3, 1, torch.float32, True),
        (1, (4, 7), 8, 1, 3, 3, 2, torch.float32, False),
        (1, (2, 1), 1, 1, 1, 7, 1, torch.float32, True),  # smaller than the window
        pytest.param(*(1, (9, 20), 4, 1, 2, 3, 1, torch.float16, True), marks=pytest.mark.slow),
        (1, (3, 5), 4, 1, 2, 5, 3, torch.bfloat16, False),
    ],
)
def test_agrees_with_the_reference(
    interpreter, n, size, width, heads, queries, kernel, stride, dtype, tokens
):
    check(n, size, width, heads, queries, kernel, stride, dtype, tokens)


def drawn(seed):
    draw = random.Random(seed)
    size = draw.randint(1, 9), draw.randint(1, 9)
    check(
        draw.randint(1, 2), size, draw.randint(1, 9), draw.randint(1, 3), draw.randint(1, 3),
        draw.choice((1, 3, 5)), draw.choice((1, 2, 3)), draw.choice(list(TOLERANCE)),
        draw.random() < 0.5,
    )  # fmt: skip


@pytest.mark.parametrize('seed', range(2))
def test_drawn_cases(interpreter, seed):
    drawn(seed)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(2, 60))
def test_more_drawn_cases(interpreter, seed):
    drawn(seed)


def test_windows_far_below_the_largest_score(interpreter):
    """A shift by the largest score of the image would leave nothing of them."""
    inputs = draw_inputs(1, (3, 9), 2, 1, 1, 3, torch.float32, True)
    inputs[0][..., 5:] += 300
    out = learned_query_attention(*inputs, impl='triton')
    inputs[0][..., 5:] -= 300
    expected = learned_query_attention(*inputs, impl='reference')
    torch.testing.assert_close(out[..., :4], expected[..., :4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('tokens', [False, True])
def test_fake_results_have_the_strides_of_real_ones(interpreter, tokens):
    inputs = draw_inputs(1, (2, 3), 2, 2, 2, 3, torch.float32, tokens)
    inputs = [x.requires_grad_() for x in inputs]
    out = query_triton._attend(*inputs, 1)
    grads = torch.autograd.grad(out, inputs, torch.ones_like(out))
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in inputs]
        fake_out = query_triton._attend(*fake, 1)
        fake_grads = torch.autograd.grad(fake_out, fake, torch.ones_like(fake_out))
    for a, b in zip((out, *grads), (fake_out, *fake_grads), strict=True):
        assert a.stride() == b.stride()


def test_where_kernels_fail_the_rest_does_not(monkeypatch, interpreter):
    monkeypatch.setattr(query_triton, 'launched', lambda operator, run, otherwise: otherwise())
    check(1, (3, 4), 2, 2, 2, 3, 2, torch.float32, True)
    check(1, (3, 4), 2, 1, 2, 3, 1, torch.float16, False)
