"""The core of Swin Transformers: merging of patches, windows, shifts."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones.frames.swin import PatchMerging, Swin, SwinBlock
from hybrid_mm.layers.attention.window_attention import WindowAttention


class Plain(Swin):
    """The Swin Transformer itself."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.build()

    def make_attention(self, stage, block):
        return WindowAttention(self.stage_channels[stage], self.windows[stage], self.heads[stage])


@pytest.mark.parametrize('size', [(4, 6), (5, 3)])
def test_merging_goes_through_columns_last(size):
    """Even row and column, odd row, odd column, both odd; zeros beyond the border."""
    layer = PatchMerging(3).double()
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    x = torch.randn(2, *size, 3, dtype=torch.float64)
    full = x.new_zeros(2, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    full[:, : size[0], : size[1]] = x
    parts = [full[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
    joined = torch.cat(parts, -1)
    normed = nn.functional.layer_norm(joined, (12,), layer.norm.weight, layer.norm.bias)
    torch.testing.assert_close(layer(x), normed @ layer.reduction.weight.t())


def test_windows_and_shifts_of_the_blocks():
    """Every second block is shifted by half a window, rounded down."""
    with torch.device('meta'):
        model = Plain('tiny')
        other = Plain('tiny', window_size=(8, 7, 4, 3))
    blocks = [block for stage in model.stages for block in stage.blocks]
    assert [block.shift for block in blocks] == [0, 3] * 6
    assert {block.window for block in blocks} == {7}
    assert [[b.shift for b in stage.blocks][:2] for stage in other.stages] == [
        [0, 4],
        [0, 3],
        [0, 2],
        [0, 1],
    ]
    assert [stage.blocks[0].attn.window for stage in other.stages] == [8, 7, 4, 3]
    count = sum(p.numel() for p in model.parameters())
    assert count + 768 * 1000 + 1000 - 2 * (96 + 192 + 384) == 28_288_354  # the classifier


def test_padded_pixels_are_zeros_after_the_norm():
    block = SwinBlock(6, WindowAttention(6, 4, 2), 4, 2).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 6, 9, 6, dtype=torch.float64)
    y = x.new_zeros(1, 8, 12, 6)
    y[:, :6, :9] = block.norm1(x)
    z = x + block.attn(y, 2)[:, :6, :9]
    torch.testing.assert_close(block(x), z + block.mlp(block.norm2(z)))
