"""Fake CUDA tensors: the backward pass is autograd's, and bodies of operators run."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hybrid_mm.benchmarks.gpu_counts import engine
from hybrid_mm.benchmarks.gpu_counts import fake_cuda as fake
from hybrid_mm.ops.evolving_attention import evolving_attention


class Twice(torch.autograd.Function):
    """Takes a number between two tensors, and gives two results."""

    @staticmethod
    def forward(ctx, x, factor, y):
        ctx.factor = factor
        return x * factor, x + y

    @staticmethod
    def backward(ctx, first, second):
        return first * ctx.factor + second, None, second


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.shift = nn.Parameter(torch.ones(4, 1, 1))
        self.frozen = nn.Parameter(torch.ones(4, 1, 1), requires_grad=False)

    def forward(self, x):
        x = checkpoint(lambda x: self.norm(self.conv(x)).relu(), x, use_reentrant=False)
        first, second = Twice.apply(x, 3.0, self.shift.expand_as(x))
        tokens = (first + x * self.frozen).view(2, 2, 2, 5, 6).permute(0, 1, 3, 4, 2)
        out, logits = evolving_attention(tokens, tokens, tokens, impl='tiled')
        return dict(out=out, more=[logits, second.unbind(0)])


@pytest.mark.skipif(
    not hasattr(torch.autograd.graph.Node, '_input_metadata'),
    reason='nodes of this torch do not tell the shapes of their results',
)
def test_backward_equals_that_of_autograd(monkeypatch):
    monkeypatch.setattr(torch._C, '_current_graph_task_id', lambda: 1)
    torch.manual_seed(0)
    network, x = Network(), torch.randn(2, 3, 5, 6)
    found = []
    for _ in range(2):
        network.zero_grad()
        leaf = x.clone().requires_grad_()
        ys = network(leaf)
        ys = [ys['out'], ys['more'][0], *ys['more'][1]]
        dys = [torch.linspace(-1, 1, y.numel()).view_as(y) for y in ys]
        if found:
            engine.backward(dict(ys=ys), [dys])
        else:
            monkeypatch.undo()
            torch.autograd.backward(ys, dys)
            monkeypatch.setattr(torch._C, '_current_graph_task_id', lambda: 1)
        found.append([leaf.grad, *(p.grad for p in network.parameters())])
    assert [g is None for g in found[1]] == [False] * 2 + [True] + [False] * 4
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_bodies_run_on_shapes_alone():
    class Calls(fake.Bodies):
        def __init__(self):
            super().__init__()
            self.names = []

        def call(self, func, args, kwargs):
            self.names.append((self.depth, func.overloadpacket.__name__))
            return super().call(func, args, kwargs)

    calls = Calls()
    with fake.fake_cuda(), calls:
        network = fake.on_fake_cuda(Network())
        x = torch.empty(2, 3, 5, 6, device='cuda', requires_grad=True)
        with torch.autocast('cuda', dtype=torch.float16):
            ys = network(x)
        seen = len(calls.names)
        engine.backward(ys)
    assert (1, '_softmax') in calls.names[:seen]
    assert (1, '_softmax_backward_data') in calls.names[seen:]
    assert (0, 'convolution_backward') in calls.names[seen:]
    assert not any('matmul' in name for _, name in calls.names), 'a product is a kernel or several'
    assert x.grad.shape == x.shape
    assert network.conv.weight.grad.is_cuda
    assert ys['out'].dtype == torch.float32
