"""Layers with a batch norm behind them, which is part of them in evaluation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hybrid_mm.layers.folded_norm import Conv2dNorm, LinearNorm, fold_norms


def drawn(module):
    """Statistics, eps and momentum that are nobody's defaults."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.2, 2)
    module.norm.eps, module.norm.momentum = 0.2, 0.3
    return module.double()


def plain(module, x):
    """The layer, then the norm of its own statistics or of those of the batch."""
    norm = module.norm
    if isinstance(module, LinearNorm):
        y = F.linear(x, module.linear.weight).movedim(-1, 1)
    else:
        conv = module.conv
        y = F.conv2d(x, conv.weight, None, conv.stride, conv.weight.shape[2] // 2, 1, conv.groups)
    mean, var = norm.running_mean, norm.running_var
    if norm.training:
        dims = [i for i in range(y.ndim) if i != 1]
        mean, var = y.mean(dims), y.var(dims, unbiased=False)
    shape = (1, -1) + (1,) * (y.ndim - 2)
    mean, var, weight, bias = (t.view(shape) for t in (mean, var, norm.weight, norm.bias))
    y = (y - mean) / (var + 0.2).sqrt() * weight + bias
    return y.movedim(1, -1) if isinstance(module, LinearNorm) else y


CASES = {
    'tokens': (lambda: LinearNorm(4, 6), (2, 5, 7, 4)),
    'few tokens': (lambda: LinearNorm(4, 6), (1, 3, 4)),  # too few to fold
    'convolution': (lambda: Conv2dNorm(4, 6, 5), (2, 4, 9, 12)),
    'stride and groups': (lambda: Conv2dNorm(4, 6, 3, 2, groups=2), (2, 4, 9, 12)),
    'few pixels': (lambda: Conv2dNorm(4, 6), (1, 4, 2, 3)),
}


@pytest.mark.parametrize('mode', ['training', 'frozen norm', 'evaluation', 'deployed'])
@pytest.mark.parametrize('name', CASES)
def test_equals_layer_and_norm(name, mode):
    make, shape = CASES[name]
    module = drawn(make()).train(mode in ('training', 'frozen norm'))
    if mode == 'frozen norm':
        module.norm.eval()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    before = module.norm.running_mean.clone()
    expected = plain(module, x)
    wanted = torch.autograd.grad(expected.sin().sum(), leaves)
    if mode == 'deployed':
        fold_norms(nn.Sequential(module))
        assert isinstance(module.norm, nn.Identity)
        torch.testing.assert_close(module(x), expected)
        return
    found = module(x)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found.sin().sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert torch.equal(module.norm.running_mean, before) == (mode != 'training')


def test_a_traced_layer_takes_any_number_of_images():
    """Whether it is folded does not depend on the map that is traced."""
    if not hasattr(torch.export, 'Dim') or not hasattr(torch.export.Dim, 'DYNAMIC'):
        pytest.skip('torch before 2.6 leaves no sizes open so')
    for layer, shape in ((LinearNorm(4, 6), (2, 3, 4)), (Conv2dNorm(4, 6), (2, 4, 5, 3))):
        module = drawn(layer).eval()
        program = torch.export.export(
            module,
            (torch.randn(shape, dtype=torch.float64),),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
        x = torch.randn(40, *shape[1:], dtype=torch.float64)
        torch.testing.assert_close(program.module()(x), module(x))
