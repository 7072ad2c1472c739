"""bfloat16 without a gradient scaler."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from hybrid_mm.engine import AutocastOptimWrapper
from hybrid_mm.engine.optim_wrapper import autocast_features


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def test_features_in_bfloat16_heads_in_float32(noting_detector):
    torch.manual_seed(0)
    model, x = noting_detector(), torch.rand(5, 4)
    plain = model(x)
    assert model.inside == torch.float32
    for outer in (model, Wrapped(model), Wrapped(Wrapped(model))):
        with autocast_features(outer):
            y = outer(x)
        assert model.inside == torch.bfloat16
        assert model.outside == (torch.float32, torch.float32, torch.float32, torch.int64)
        assert y.dtype == torch.float32
        assert 0 < (y - plain).abs().max() < 0.02
        # and nothing is left of it, not even after an error
        with pytest.raises(RuntimeError), autocast_features(outer):
            outer(torch.rand(5, 3))
        assert 'extract_feat' not in vars(model)
        assert torch.equal(outer(x), plain) and model.inside == torch.float32
    bare = Bare()
    with autocast_features(Wrapped(bare)):
        assert bare(x).dtype == torch.bfloat16
    assert bare(x).dtype == torch.float32


def test_steps_of_the_wrapper(monkeypatch, noting_detector):
    """The forward pass alone is in bfloat16; accumulation and the rest are MMEngine's."""
    model = noting_detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper, x = AutocastOptimWrapper(optimizer=optimizer, accumulative_counts=2), torch.rand(5, 4)
    entered = []
    original = OptimWrapper.optim_context

    def watched(self, module):
        entered.append(module)
        return original(self, module)

    monkeypatch.setattr(OptimWrapper, 'optim_context', watched)
    before = model.head.weight.clone()
    for step in range(2):
        with wrapper.optim_context(model):
            loss = model(x).pow(2).mean()
        assert model.inside == torch.bfloat16 and loss.dtype == torch.float32
        wrapper.update_params(loss)
        assert torch.equal(model.head.weight, before) == (step == 0)
    assert entered == [model, model]
    with pytest.raises(ValueError, match='takes bfloat16 only, got float16'):
        AutocastOptimWrapper(dtype='float16', optimizer=optimizer)
