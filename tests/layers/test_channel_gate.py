"""Channel gates against their formulas."""

import pytest
import torch

from hybrid_mm.layers import EfficientChannelGate, SqueezeExcite


def test_squeeze_excite():
    gate, x = SqueezeExcite(32, 4).double(), torch.randn(2, 32, 3, 5, dtype=torch.float64)
    w1, w2 = gate.fc1.weight[..., 0, 0], gate.fc2.weight[..., 0, 0]
    assert w1.shape == (8, 32)
    hidden = (x.mean((2, 3)) @ w1.t() + gate.fc1.bias).clamp(min=0)
    factor = torch.sigmoid(hidden @ w2.t() + gate.fc2.bias)
    torch.testing.assert_close(gate(x), x * factor[:, :, None, None])


@pytest.mark.parametrize('channels, size', [(16, 3), (64, 3), (128, 5), (512, 5), (2048, 7)])
def test_efficient_channel_gate(channels, size):
    gate = EfficientChannelGate(channels).double()
    assert gate.conv.weight.shape == (1, 1, size)
    x = torch.randn(2, channels, 2, 2, dtype=torch.float64)
    mean = torch.zeros(2, channels + size - 1, dtype=torch.float64)
    mean[:, size // 2 : size // 2 + channels] = x.mean((2, 3))
    moved = sum(gate.conv.weight[0, 0, i] * mean[:, i : i + channels] for i in range(size))
    torch.testing.assert_close(gate(x), x * torch.sigmoid(moved)[:, :, None, None])


@pytest.mark.parametrize('channels, ratio, hidden', [(188, 16, 8), (192, 16, 16), (100, 4, 24)])
def test_hidden_width_is_rounded_to_the_nearest_multiple(channels, ratio, hidden):
    """As timm's; 11.75 becomes 8, although that is less than nine tenths of it."""
    assert SqueezeExcite(channels, ratio).fc1.out_channels == hidden
    assert SqueezeExcite(channels, hidden_channels=5).fc1.out_channels == 5


def test_activation_of_the_hidden_layer():
    gate = SqueezeExcite(16, hidden_channels=6, act=torch.nn.functional.silu)
    x = torch.randn(2, 16, 3, 5)
    mean = x.mean((2, 3), keepdim=True)
    expected = x * torch.sigmoid(gate.fc2(torch.nn.functional.silu(gate.fc1(mean))))
    torch.testing.assert_close(gate(x), expected)
