"""Kernels of evolving attention in Triton's interpreter, against the formulas in float64."""

import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.ops import kernels
from hybrid_mm.ops.evolving_attention import evolving_attention, triton

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
TABLES, CHAIN = ('rel_h', 'rel_w'), ('previous', 'weight', 'bias')


def inputs(n, heads, size, dim, dim_v, dtype, channels_first=False, without=()):
    """Inputs by name; queries, keys and values are parts of one map of tokens or of NCHW."""
    torch.manual_seed(0)
    height, width = size
    tokens = height * width
    maps = torch.randn(n, height, width, heads, 2 * dim + dim_v).to(dtype)
    if channels_first:
        maps = maps.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    maps[..., :dim] *= dim**-0.5
    parts = maps.permute(0, 3, 1, 2, 4).split([dim, dim, dim_v], -1)
    found = dict(zip('qkv', parts, strict=True))
    found |= dict(rel_h=torch.randn(2 * height - 1, dim), rel_w=torch.randn(2 * width - 1, dim))
    found |= dict(previous=torch.randn(n, heads, tokens, tokens))
    found |= dict(weight=torch.randn(heads, heads, 3, 3) / 3, bias=torch.randn(heads))
    if dtype != torch.float32:  # rounding must not push logits over the kink of the ReLU
        found['bias'] = 20 * found['bias'].sign()
    return {name: x for name, x in found.items() if name not in without}


def results(given, impl, used, **options):
    """Results and gradients; those of the formulas in float64."""
    kind = torch.float64 if impl == 'reference' else None
    leaves = {name: x.detach().to(kind or x.dtype).requires_grad_() for name, x in given.items()}
    outs = evolving_attention(**leaves, impl=impl, **options)
    chosen = [outs[i] for i in used]
    dys = [torch.linspace(-3, 5, y.numel()).view_as(y).sin().to(y) for y in chosen]
    grads = torch.autograd.grad(chosen, list(leaves.values()), dys, allow_unused=True)
    return outs, dict(zip(leaves, grads, strict=True))


def check(given, dtype, used=(0, 1), **options):
    outs, grads = results(given, 'triton', used, **options)
    expected_outs, expected = results(given, 'reference', used, **options)
    assert [x.dtype for x in outs] == [dtype, torch.float32]
    pairs = list(zip(('out', 'logits'), outs, expected_outs, strict=True))
    for name, grad in grads.items():
        if grad is not None:
            assert grad.dtype == given[name].dtype, name
        zeros = torch.zeros_like(given[name])
        pairs.append((name, *(zeros if g is None else g for g in (grad, expected[name]))))
    for name, a, b in pairs:
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=1e-3)
        assert error < TOLERANCE[dtype], f'{name}: {error:.1e}'


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ('case', 'without', 'used', 'options'),
    [
        ((2, 3, (3, 4), 5, 3, torch.float32), (), (0, 1), {}),
        ((1, 2, (2, 17), 16, 8, torch.float32), CHAIN, (0, 1), {}),
        ((1, 2, (5, 7), 4, 4, torch.float32, True), (*TABLES, *CHAIN), (0,), {}),
        ((1, 9, (3, 4), 17, 20, torch.float16), (), (0, 1), {}),
        *slow(
            ((1, 8, (5, 7), 4, 2, torch.float32, True), (), (0, 1), dict(alpha=0.6, beta=0.3)),
            ((1, 1, (1, 1), 1, 1, torch.float32), TABLES, (0, 1), dict(beta=1.0)),
            ((1, 2, (3, 3), 4, 4, torch.float32), (), (1,), dict(beta=0.0)),
            ((2, 4, (5, 13), 8, 4, torch.float16, True), (), (0, 1), {}),
            ((1, 4, (4, 3), 8, 4, torch.bfloat16), (), (0, 1), dict(alpha=0.5)),
        ),
    ],
)
def test_kernels_agree_with_the_formulas(interpreter, case, without, used, options):
    check(inputs(*case, without=without), case[5], used, **options)


def drawn(seed):
    draw = random.Random(seed)
    size = draw.randint(1, 9), draw.randint(1, 9)
    dtype = draw.choice(list(TOLERANCE))
    dims = draw.randint(1, 20), draw.randint(1, 20)
    case = draw.randint(1, 2), draw.randint(1, 6), size, *dims, dtype, draw.random() < 0.5
    without = draw.choice(((), TABLES, CHAIN, (*TABLES, *CHAIN)))
    # through the softmax alone no gradient reaches the bias of a head that is above the kink
    used = draw.choice(((0,), (1,), (0, 1)) if dtype == torch.float32 else ((1,), (0, 1)))
    return case, without, used, dict(alpha=draw.choice((1.0, 0.7)), beta=draw.choice((0.5, 0.2)))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(40))
def test_kernels_agree_in_drawn_cases(interpreter, seed):
    case, without, used, options = drawn(seed)
    check(inputs(*case, without=without), case[5], used, **options)


@pytest.mark.parametrize('alpha', [1.0, 0.6])
def test_launches(alpha):
    """3 forward; 5 backward, of which the sums of partial sums are not, and one for the sign."""
    pytest.importorskip('triton', minversion='3.2')
    found = []
    with FakeTensorMode(), kernels.recorded(found.append):
        given = [torch.empty(2, 3, 20, d, device='cuda', dtype=torch.float16) for d in (4, 4, 2)]
        terms = [torch.empty(2, 3, 20, s, device='cuda', dtype=torch.float16) for s in (4, 5)]
        chain = [torch.empty(s, device='cuda') for s in ((2, 3, 20, 20), (3, 3, 3, 3), (3,))]
        outs = triton.evolve._init_fn(*given, *terms, *chain, [4, 5], alpha, 0.5)
        assert len(found) == 3
        triton._backward(outs[0], outs[1], None, *outs, *given, *terms, *chain, [4, 5], alpha, 0.5)
    assert len(found) == 3 + 6 + (alpha != 1)
    assert all(
        x.is_cuda for launch in found for x in launch.arguments.values() if hasattr(x, 'is_cuda')
    )


def test_operator_contract(interpreter, opcheck):
    given = inputs(2, 3, (3, 4), 5, 4, torch.float32)
    q, k, v = (given[name].flatten(2, 3) for name in 'qkv')
    terms = torch.randn(2, 3, 12, 3), torch.randn(2, 3, 12, 4)
    chain = (given[name] for name in CHAIN)
    arguments = (q, k, v, *terms, *chain, [3, 4], 0.8, 0.4)
    tests = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    opcheck(torch.ops.hybrid_mm.evolving_attention_triton, arguments, test_utils=tests)


@pytest.mark.parametrize('without', [(), (*TABLES, *CHAIN)])
def test_another_algorithm_where_kernels_do_not_work(interpreter, monkeypatch, without):
    def fails(operator, run, otherwise):
        return otherwise()

    monkeypatch.setattr(triton, 'launched', fails)
    check(inputs(1, 2, (3, 4), 5, 3, torch.float32, without=without), torch.float32, alpha=0.6)


def test_tables_of_another_size(interpreter):
    given = inputs(1, 1, (3, 4), 5, 2, torch.float32) | dict(rel_h=torch.zeros(7, 5))
    with pytest.raises(ValueError, match='5 relative vectors expected, got 7'):
        evolving_attention(**given, impl='triton')


def test_maps_that_are_too_long(interpreter):
    given = inputs(1, 1, (1, triton.LONGEST + 1), 1, 1, torch.float32)
    with pytest.raises(RuntimeError, match="'triton' of evolving_attention: a map of 1 x 129"):
        evolving_attention(**given, impl='triton')
