"""Operators declared with their shapes and gradients at once."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hybrid_mm.compat.torch_api import is_autocast_enabled
from hybrid_mm.ops.custom_op import custom_op

calls = []


def _backward(
    grad_y: Tensor | None,
    grad_z: Tensor | None,
    needs: list[bool],
    z: Tensor,
    x: Tensor,
    bias: Tensor | None,
    factor: float,
    sizes: list[int],
    name: str,
) -> list[Tensor]:
    calls.append((grad_y is None, grad_z is None, list(needs), is_autocast_enabled('cpu')))
    assert (factor, list(sizes), name) == (3.0, [2, 4], 'cube')
    grad = torch.zeros_like(x)
    if grad_y is not None:
        grad += factor * grad_y
    if grad_z is not None:
        grad += 3 * z / x * grad_z  # z = x^3
    found = [grad]
    if bias is not None:
        found.append(torch.zeros_like(bias) if grad_y is None else grad_y.sum(0))
    return [g for g, needed in zip(found, needs, strict=False) if needed]


@custom_op(
    'hybrid_mm::test_line_and_cube',
    fake=lambda x, *_: (x.new_empty(x.shape), x.new_empty(x.shape)),
    backward=_backward,
    keep=[1],
)
def line_and_cube(
    x: Tensor, bias: Tensor | None, factor: float, sizes: Sequence[int], name: str
) -> tuple[Tensor, Tensor]:
    assert not is_autocast_enabled('cpu')
    line = factor * x if bias is None else factor * x + bias
    return line.reshape(*sizes), x**3


def inputs(bias=True):
    torch.manual_seed(0)
    x = torch.rand(2, 4, dtype=torch.float64) + 0.5
    return x.requires_grad_(), torch.rand(4, dtype=torch.float64).requires_grad_() if bias else None


OTHERS = 3.0, [2, 4], 'cube'


@pytest.mark.parametrize('bias', [True, False])
def test_registered_completely_and_differentiated(bias, opcheck):
    x, b = inputs(bias)
    opcheck(torch.ops.hybrid_mm.test_line_and_cube, (x, b, *OTHERS))
    torch.autograd.gradcheck(lambda *tensors: line_and_cube(*(*tensors, None)[:2], *OTHERS),
                             (x, b) if bias else (x,))  # fmt: skip


def test_gradients_that_are_needed_only():
    x, b = inputs()
    for needs in ([True, False], [False, True], [True, True]):
        calls.clear()
        tensors = [t.detach().requires_grad_(n) for t, n in zip((x, b), needs, strict=True)]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            y, _ = line_and_cube(*tensors, *OTHERS)
            y.sum().backward()
        assert [t.grad is not None for t in tensors] == needs
        assert calls == [(False, True, needs, False)]
        if needs[0]:
            torch.testing.assert_close(tensors[0].grad, torch.full_like(x, 3.0))


def test_result_without_gradient_gets_no_zeros():
    x, _ = inputs()
    calls.clear()
    line_and_cube(x, None, *OTHERS)[1].sum().backward()
    assert calls == [(True, False, [True, False], False)]
    torch.testing.assert_close(x.grad, 3 * x.detach() ** 2)


def test_keeps_its_tensors_and_the_chosen_result():
    x, b = inputs()
    kept = []

    def pack(t):
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        _, z = line_and_cube(x, b, *OTHERS)
    assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in (z, x, b)]


def test_compiles_as_one_node():
    x, b = inputs()
    compiled = torch.compile(lambda x, b: line_and_cube(x, b, *OTHERS), fullgraph=True,
                             backend='aot_eager')  # fmt: skip
    y, z = compiled(x, b)
    (y + z).sum().backward()
    torch.testing.assert_close(x.grad, 3 + 3 * x.detach() ** 2)


def test_wrong_declarations():
    def late(size: int, x: Tensor) -> Tensor:
        return x

    def strange(x: Tensor, size: complex) -> Tensor:
        return x

    with pytest.raises(TypeError, match='tensors must come before'):
        custom_op('hybrid_mm::test_late', fake=lambda size, x: x)(late)
    with pytest.raises(TypeError, match='complex'):
        custom_op('hybrid_mm::test_strange', fake=lambda x, size: x)(strange)


def test_declared_again():
    """As by a notebook that loads changed modules: what is declared last counts."""

    def declare(factor):
        def backward(grad: Tensor, x: Tensor) -> list[Tensor]:
            return [grad * factor]

        def function(x: Tensor) -> Tensor:
            return x * factor

        name = 'hybrid_mm::test_again'
        return custom_op(name, fake=lambda x: x.new_empty(x.shape), backward=backward)(function)

    functions = [declare(factor) for factor in (2, 3, 4)]
    x = torch.ones(3, requires_grad=True)
    y = functions[-1](x)
    y.sum().backward()
    assert y.tolist() == x.grad.tolist() == [4] * 3
    assert torch.ops.hybrid_mm.test_again(x).tolist() == [4] * 3
    if not hasattr(torch.library, 'custom_op'):
        assert functions[0](x).tolist() == [4] * 3


def test_second_derivative_is_refused():
    x, b = inputs()
    y, z = line_and_cube(x, b, *OTHERS)
    (first,) = torch.autograd.grad(y.sum() + z.sum(), x, create_graph=True)
    match = "hybrid_mm::test_line_and_cube has no second derivative; impl='reference'"
    with pytest.raises(NotImplementedError, match=match):
        torch.autograd.grad(first.sum(), x)
