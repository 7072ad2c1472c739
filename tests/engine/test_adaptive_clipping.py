"""Adaptive gradient clipping beside a loop over units, in all precisions."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper as upstream
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.engine import AGCAmpOptimWrapper, AGCAutocastOptimWrapper, AGCOptimWrapper
from hybrid_mm.engine.adaptive_clipping import clip_adaptively
from hybrid_mm.errors import UserError


def by_unit(weight, grad, factor=0.01, eps=1e-3):
    """Equation 3 of the paper for one parameter, unit by unit."""
    if weight.dim() < 2:
        ratio = max(weight.norm().item(), eps) * factor / max(grad.norm().item(), 1e-30)
        return grad * min(ratio, 1)
    return torch.stack([by_unit(w.flatten(), g.flatten(), factor, eps).view_as(g)
                        for w, g in zip(weight, grad, strict=True)])  # fmt: skip


class Net(nn.Module):
    """Rows of one length in several parameters, a scalar, an empty one, one without a gradient."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.flat = nn.Linear(27, 5)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.zero = nn.Parameter(torch.zeros(8))
        self.scalar = nn.Parameter(torch.tensor(0.5))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        x = self.norm(self.depthwise(self.conv(x)))
        x = x + self.zero[:, None, None]
        return self.flat(x.flatten(1)[:, :27]) * self.scalar + self.empty.sum()


def with_grads(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    model = Net().to(dtype)
    for i, p in enumerate(model.parameters()):
        if p is not model.unused:  # some far above the limit, some below
            p.grad = torch.randn_like(p) * 10.0 ** (i % 5 - 4)
    return model


@pytest.mark.parametrize('settings', [{}, dict(clip_factor=0.3, eps=0.05)])
def test_equals_a_loop_over_units(settings):
    model = with_grads()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    pointers = [p.grad.data_ptr() for p in model.parameters() if p.grad is not None]
    clip_adaptively(model.parameters(), **settings)
    assert pointers == [p.grad.data_ptr() for p in model.parameters() if p.grad is not None]
    changed = 0
    for name, p in model.named_parameters():
        if name != 'unused':
            factor, eps = settings.get('clip_factor', 0.01), settings.get('eps', 1e-3)
            expected = by_unit(p.detach(), before[name], factor, eps) if p.numel() else p
            torch.testing.assert_close(p.grad, expected, rtol=1e-12, atol=0)
            changed += not torch.equal(p.grad, before[name])
    assert 2 < changed < len(before) - 2  # both sides of the limit are seen
    assert model.unused.grad is None
    # a gradient that is not finite stays so: hooks and scalers look for it
    model.flat.weight.grad[1, 2] = float('inf')
    clip_adaptively(model.parameters())
    assert not model.flat.weight.grad[1].isfinite().all()
    assert model.flat.weight.grad[0].isfinite().all()


def test_launches_do_not_grow_with_the_layers():
    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            views = ('view', 'detach', 'split', 'reshape', 'alias')
            self.number += not any(word in function.__name__ for word in views)
            return function(*args, **(kwargs or {}))

    def launches(layers):
        model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(layers)))
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        with Count() as count:
            count.number = 0
            clip_adaptively(model.parameters())
        return count.number

    assert launches(2) == launches(30) == 11


@pytest.mark.parametrize('bfloat16', [False, True])
def test_steps_of_the_wrapper(bfloat16):
    """Clipped once per step of the optimizer, after the gradients are accumulated."""
    kind = AGCAutocastOptimWrapper if bfloat16 else AGCOptimWrapper
    models = [Net() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.SGD(m.parameters(), lr=1.0, momentum=0.9) for m in models]
    settings = dict(clip_grad=dict(clip_factor=0.02), accumulative_counts=2)
    wrapper = kind(optimizer=optimizers[0], **settings)
    for step in range(4):
        x = torch.rand(2, 3, 8, 8)
        with wrapper.optim_context(models[0]):
            loss = models[0](x).float().pow(2).mean()
        wrapper.update_params(loss)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=bfloat16):
            other = models[1](x).float().pow(2).mean()
        (other / 2).backward()
        if step % 2:
            for p in models[1].parameters():
                if p.grad is not None and p.numel():
                    p.grad = by_unit(p.detach(), p.grad, 0.02)
            optimizers[1].step()
            optimizers[1].zero_grad()
        for a, b in zip(*(m.parameters() for m in models), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'), reason='no scaler for CPUs in torch < 2.3'
)
def test_unscaled_before_the_clipping(monkeypatch):
    """In float16: the limit is for gradients, not for those times the scale."""
    monkeypatch.setattr(upstream, 'is_cuda_available', lambda: True)
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(upstream, 'GradScaler', lambda **kw: scaler('cpu', init_scale=1024.0, **kw))
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = AGCAmpOptimWrapper(optimizer=optimizer, clip_grad=dict(clip_factor=0.1))
    assert wrapper.loss_scaler.get_scale() == 1024.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x = torch.rand(3, 4)
    loss = model(x).pow(2).sum()
    grads = dict(zip(before, torch.autograd.grad(loss, [*model.parameters()]), strict=True))
    wrapper.update_params(model(x).pow(2).sum())
    for name, p in model.named_parameters():
        step = by_unit(before[name], grads[name], 0.1)
        torch.testing.assert_close(before[name] - p.detach(), step, rtol=1e-4, atol=1e-7)
    assert 'loss_scaler' in wrapper.state_dict()


def test_settings():
    model = nn.Linear(2, 2)
    config = dict(type='hybrid_mm.AGCOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    assert build_optim_wrapper(model, config).clip_grad_kwargs == dict(clip_factor=0.01, eps=1e-3)
    config['clip_grad'] = dict(clip_factor=0.2)
    for _ in range(2):  # a config is not changed by what is built from it
        kept = build_optim_wrapper(model, config).clip_grad_kwargs
        assert kept == dict(clip_factor=0.2, eps=1e-3)
    for bad in (dict(max_norm=5.0), dict(clip_factor=0), dict(clip_factor=0.1, eps=-1)):
        with pytest.raises(UserError, match='AGCOptimWrapper needs clip_grad=dict'):
            build_optim_wrapper(model, config | dict(clip_grad=bad))
