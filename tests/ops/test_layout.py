"""Gradients that reach a map as dense as the map is."""

import pytest
import torch
from torch import nn

from hybrid_mm.ops.layout import dense_gradient


def strides_of_gradients(function, x, dy):
    """Strides with which the gradient of a map arrives behind a function of the map."""
    found = []
    y = x * 1
    y.register_hook(lambda grad: found.append((grad.stride(), grad)))
    function(y).backward(dy)
    return found[0]


def test_any_layout_becomes_that_of_the_map():
    x = torch.rand(1, 3, 4, 5, requires_grad=True)
    tokens = torch.rand(1, 20, 3)
    for dy in (
        tokens.transpose(1, 2).reshape(1, 3, 4, 5),
        torch.rand(1, 4, 5, 3).permute(0, 3, 1, 2),
        torch.rand(1, 3, 5, 4).transpose(2, 3),
        torch.as_strided(torch.rand(60), (1, 3, 4, 5), (7, 20, 5, 1)),
    ):
        assert strides_of_gradients(lambda y: y.clone(), x, dy)[0] != x.stride()
        stride, grad = strides_of_gradients(dense_gradient, x, dy)
        assert stride == x.stride()
        assert torch.equal(grad, dy)


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_head_on_tokens_behind_a_batch_norm(training):
    """What torch gets wrong on a CPU, as in torch 2.14.1, when nothing lays the gradient out."""
    torch.manual_seed(0)
    norm, linear = nn.BatchNorm2d(6).double().train(training), nn.Linear(6, 3).double()
    x = torch.randn(1, 6, 4, 5, dtype=torch.float64, requires_grad=True)

    def loss(x):
        return linear(dense_gradient(norm(x)).flatten(2).transpose(1, 2)).square().sum()

    assert torch.autograd.gradcheck(loss, x)
    assert torch.autograd.gradgradcheck(loss, x)


def test_costs_nothing_forward():
    x = torch.rand(2, 3, 4, 5, requires_grad=True).clone()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = dense_gradient(x)
    assert not kept
    assert y.data_ptr() == x.data_ptr()
    assert y.stride() == x.stride()
    dy = torch.rand(2, 3, 4, 5)
    assert strides_of_gradients(dense_gradient, x, dy)[1].data_ptr() == dy.data_ptr()
    for other in (x.transpose(2, 3), x.to('meta')):
        assert dense_gradient(other) is other
    assert dense_gradient(x[:0]).shape == (0, 3, 4, 5)


def test_compiled_mapped_and_written_to():
    torch._dynamo.reset()
    x = torch.rand(2, 3, 4, 5, requires_grad=True)
    compiled = torch.compile(dense_gradient, fullgraph=True, backend='aot_eager')
    compiled(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x)
    each = torch.func.vmap(torch.func.grad(lambda y: dense_gradient(y).square().sum()))
    torch.testing.assert_close(each(x.detach()), 2 * x)
    (grad,) = torch.autograd.grad(dense_gradient(x * 2).relu_().sum(), x)  # as ReLU(inplace=True)
    assert torch.equal(grad, torch.full_like(x, 2))
