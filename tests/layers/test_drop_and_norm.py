"""Stochastic depth and layer norm."""

import pytest
import torch
from torch import nn

from hybrid_mm.layers import DropPath, LayerNorm2d, drop_path_schedule


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 3))
    values = out.flatten(1)
    assert ((values == values[:, :1]).all(1)).all()
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    x = torch.rand(3, 2)
    assert drop.eval()(x) is x


def test_drop_path_schedule():
    rates = drop_path_schedule(0.3, [1, 2, 1])
    assert [len(r) for r in rates] == [1, 2, 1]
    assert [rate for stage in rates for rate in stage] == pytest.approx([0, 0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r'depths must not be negative, got \[-1, 2\]'):
        drop_path_schedule(0.3, [-1, 2])


@pytest.mark.parametrize('rate', [-0.1, 1.0])
def test_drop_path_rejects_other_rates(rate):
    with pytest.raises(ValueError, match='drop path rate'):
        DropPath(rate)
    with pytest.raises(ValueError, match='drop_path_rate'):
        drop_path_schedule(rate, [2, 2])


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_layer_norm_2d(memory_format):
    torch.manual_seed(0)
    norm = LayerNorm2d(6, eps=1e-3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 5, 3, dtype=torch.float64).to(memory_format=memory_format)
    mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    scaled = (x - mean) / (var + 1e-3).sqrt()
    expected = scaled * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), expected)
