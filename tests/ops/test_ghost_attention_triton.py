"""Kernels of ELSA's ghost head in Triton's interpreter, against the reference in float64."""

import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.ops.ghost_attention import ghost_attention
from hybrid_mm.ops.ghost_attention import triton as ghost_triton

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
LAYOUTS = 'contiguous', 'channels_last', 'tokens', 'view'


def laid_out(x, layout):
    """The same numbers with other strides."""
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    if layout == 'tokens':  # part of (N, H, W, 2 C), as ELSA's projection has it
        tokens = torch.cat([torch.zeros_like(x), x], 1).permute(0, 2, 3, 1).contiguous()
        return tokens[..., x.shape[1] :].permute(0, 3, 1, 2)
    if layout == 'view':
        view = x.new_zeros(x.shape[0], x.shape[1] + 1, x.shape[3], x.shape[2] * 2)
        view = view[:, 1:, :, ::2].transpose(2, 3)
        view.copy_(x)
        return view
    return x.contiguous()


def draw_inputs(n, size, width, heads, hidden, kernel, tables, dtype, layout, groups=1):
    torch.manual_seed(0)
    maps = [torch.randn(n, c, *size).to(dtype) for c in (hidden, heads * width)]
    weight = torch.randn(heads * kernel**2, hidden // groups) * 0.5
    filters = [torch.randn(heads * width, kernel, kernel) if there else None for there in tables]
    return [*(laid_out(x, layout) for x in maps), weight, torch.randn(len(weight)), *filters]


def with_gradients(inputs, cotangent, **options):
    inputs = [None if x is None else x.detach().requires_grad_() for x in inputs]
    out = ghost_attention(*inputs, **options)
    given = [x for x in inputs if x is not None]
    return out, *torch.autograd.grad(out, given, cotangent.to(out.dtype))


def check(n, size, width, heads, hidden, kernel, dilation, tables, dtype, layout, groups=1):
    inputs = draw_inputs(n, size, width, heads, hidden, kernel, tables, dtype, layout, groups)
    cotangent = laid_out(torch.randn(n, heads * width, *size).to(dtype), layout)
    options = dict(heads=heads, kernel_size=kernel, dilation=dilation)
    found = with_gradients(inputs, cotangent, **options, impl='triton')
    exact = [None if x is None else x.double() for x in inputs]
    expected = with_gradients(exact, cotangent, **options, impl='reference')
    names = ['hidden', 'v', 'weight', 'bias', 'mul', 'add']
    names = ['out', *(name for name, x in zip(names, inputs, strict=True) if x is not None)]
    for name, a, b in zip(names, found, expected, strict=True):
        assert a.dtype == (dtype if name in ('out', 'hidden', 'v') else torch.float32)
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=0.1)
        assert error < TOLERANCE[dtype], f'{name}: {error:.1e}'


@pytest.mark.parametrize(
    ('n', 'size', 'width', 'heads', 'hidden', 'kernel', 'dilation', 'tables', 'dtype', 'layout'),
    [
        (2, (5, 7), 4, 2, 6, 3, 1, (False, True), torch.float32, 'tokens'),
        (1, (2, 3), 3, 3, 5, 5, 2, (True, True), torch.float32, 'contiguous'),
        (1, (1, 1), 1, 1, 1, 3, 1, (False, False), torch.float32, 'channels_last'),
        (1, (8, 9), 16, 2, 16, 3, 1, (False, True), torch.float16, 'tokens'),
        pytest.param(
            *(1, (2, 9), 8, 1, 70, 7, 1, (True, False), torch.float32, 'view'),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(1, (6, 4), 8, 2, 20, 5, 1, (True, True), torch.bfloat16, 'channels_last'),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_agrees_with_the_reference(
    interpreter, n, size, width, heads, hidden, kernel, dilation, tables, dtype, layout
):
    check(n, size, width, heads, hidden, kernel, dilation, tables, dtype, layout)


def test_groups_of_the_hidden_map(interpreter):
    tables = False, True
    check(1, (3, 4), 2, 2, 8, 3, 1, tables, torch.float32, 'contiguous', groups=2)


def drawn(seed):
    draw = random.Random(seed)
    size = draw.randint(1, 9), draw.randint(1, 9)
    tables = draw.random() < 0.5, draw.random() < 0.5
    check(
        draw.randint(1, 2), size, draw.randint(1, 9), draw.randint(1, 3), draw.randint(1, 80),
        draw.choice((1, 3, 5)), draw.choice((1, 2)), tables, draw.choice(list(TOLERANCE)),
        draw.choice(LAYOUTS),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(60))
def test_drawn_cases(interpreter, seed):
    drawn(seed)


def test_large_logits_stay_finite(interpreter):
    inputs = draw_inputs(1, (3, 4), 2, 1, 4, 3, (False, False), torch.float16, 'contiguous')
    inputs[2] = inputs[2] * 1000
    options = dict(heads=1, kernel_size=3, impl='triton')
    found = with_gradients(inputs, torch.ones(1, 2, 3, 4), **options)
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_results_have_the_strides_of_real_ones(interpreter, layout):
    inputs = draw_inputs(1, (2, 3), 2, 1, 4, 3, (True, True), torch.float32, layout)
    inputs = [x.requires_grad_() for x in inputs]
    out = ghost_triton._attend(*inputs, 1, 3, 1)
    grads = torch.autograd.grad(out, inputs, torch.ones_like(out))
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in inputs]
        fake_out = ghost_triton._attend(*fake, 1, 3, 1)
        fake_grads = torch.autograd.grad(fake_out, fake, torch.ones_like(fake_out))
    for a, b in zip((out, *grads), (fake_out, *fake_grads), strict=True):
        assert a.stride() == b.stride()
    tokens = layout in ('channels_last', 'tokens')
    assert all((x.stride(1) == 1) == tokens for x in grads[:2]), 'gradients lie as their maps do'


def test_where_kernels_fail_the_rest_does_not(monkeypatch, interpreter):
    monkeypatch.setattr(ghost_triton, 'launched', lambda operator, run, otherwise: otherwise())
    check(1, (3, 4), 2, 2, 6, 3, 1, (True, False), torch.float32, 'tokens')
    check(1, (3, 4), 2, 2, 6, 3, 1, (False, True), torch.float32, 'contiguous')
