"""What SLaK, PeLK and HorNet share: layers of the decay, the norms of pooled maps."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import HorNet, PeLK, SLaK
from hybrid_mm.backbones.frames.convnext import ConvNeXtFrame

TINY = dict(depths=[1, 1, 2, 1], dims=[8, 12, 16, 20])


def test_three_blocks_are_a_layer_or_two():
    """At most the last but one, also where the third stage does not end with a whole layer."""
    assert all(issubclass(kind, ConvNeXtFrame) for kind in (HorNet, PeLK, SLaK))
    for kind, depth, layers in (
        (SLaK, 9, [3] * 3 + [4] * 3 + [5] * 3),
        (SLaK, 10, [3] * 3 + [4] * 3 + [5] * 3 + [6]),
        (SLaK, 27, [layer for layer in range(3, 12) for _ in range(3)]),
        (SLaK, 30, [layer for layer in range(3, 12) for _ in range(3)] + [11] * 3),
        (HorNet, 8, [3, 3, 4, 4, 5, 5, 5, 5]),
        (HorNet, 18, [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11]),
        (HorNet, 20, [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 11, 11]),
    ):
        arch = dict(TINY, dims=[16, 16, 16, 16], depths=[1, 1, depth, 1])
        if kind is HorNet:
            arch |= dict(orders=[2, 2, 2, 2], filter_sizes=[None] * 4)
        with torch.device('meta'):
            model = kind(arch)
        last = 12 if depth > 9 else 6
        for block, layer in enumerate(layers):
            name = f'backbone.stages.2.blocks.{block}.mlp.fc1.weight'
            assert model.get_layer_depth(name, 'backbone.') == (layer, last + 2), (kind, block)
            assert model.get_stage_depth(name, 'backbone.') == (3, last + 2)


@pytest.mark.parametrize('arch, last', [('tiny', 6), ('small', 12)])
def test_layers_are_counted_as_convnext_does(arch, last):
    with torch.device('meta'):
        model = PeLK(arch)
    layers = {
        'stages.0.embed.conv.weight': 0,
        'stages.0.blocks.2.gamma': 1,
        'stages.0.pos_embed': 1,
        'stages.1.downsample.norm.bias': 2,
        'stages.1.blocks.0.mixer.large.conv.weight': 2,
        'stages.2.downsample.conv.weight': 3,
        'stages.2.blocks.2.mlp.fc1.weight': 3,
        'stages.2.blocks.8.mlp.fc1.weight': 5,
        'stages.3.downsample.conv.weight': last,
        'stages.3.blocks.0.gamma': last,
        'stages.3.norm.weight': last + 1,
    }
    for name, layer in layers.items():
        assert name in dict(model.named_parameters())
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == (layer, last + 2)
    assert model.get_layer_depth('neck.weight', 'backbone.') == (last + 1, last + 2)
    if last == 12:
        name = 'stages.2.blocks.26.gamma'
        assert model.get_layer_depth(name)[0] == 11
    stages = [model.get_stage_depth(name)[0] for name in layers]
    assert stages == [0, 1, 1, 0, 2, 0, 3, 3, 0, 4, last + 1]


def test_pooled_map_is_normalised_after_the_mean():
    model = SLaK(TINY, (7, 7, 7, 7), out_indices=(3,)).eval()
    pooled = SLaK(TINY, (7, 7, 7, 7), out_indices=(3,), pooled=True).eval()
    pooled.load_state_dict(model.state_dict())
    x = torch.rand(2, 3, 64, 64)
    model.stages[3].norm = nn.Identity()
    mean = model(x)[0].mean((2, 3))
    norm = pooled.stages[3].norm
    torch.testing.assert_close(pooled(x)[0][..., 0, 0], norm(mean))
