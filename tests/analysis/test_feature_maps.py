"""Maps of whatever a network returns, and networks that take one size of images only."""

import numpy as np
import pytest
import torch
from torch import nn

from hybrid_mm.analysis.feature_maps import maps_of, run_network, sizes_to_try
from hybrid_mm.analysis.networks import Network, build_network, load_network, without_pretrained
from hybrid_mm.errors import UserError

SIZE = (96, 128)


def shapes(output, size=SIZE):
    return [tuple(found.shape) for found in maps_of(output, size)]


def test_maps_of_all_kinds():
    rand = torch.rand
    assert shapes(rand(2, 8, 6, 8)) == [(2, 8, 6, 8)]
    assert shapes(rand(2, 6, 8, 40)) == [(2, 40, 6, 8)]  # channels last
    assert shapes([rand(2, 8, 24, 32), (rand(2, 16, 12, 16), rand(2, 16))]) == [
        (2, 8, 24, 32),
        (2, 16, 12, 16),
    ]
    assert shapes({'a': rand(2, 8, 3, 4), 'mask': torch.ones(2, 1, 3, 4).bool()}) == [(2, 8, 3, 4)]
    assert shapes(rand(2, 5)) == [(2, 5, 1, 1)]
    assert shapes(('x', None)) == []
    # maps of odd sizes, rounded up or down
    assert shapes(rand(1, 8, 25, 33), (99, 130)) == [(1, 8, 25, 33)]


@pytest.mark.parametrize('extra', [0, 1, 2, 5])
def test_tokens_become_maps(extra):
    """Tokens in rows, behind class tokens; also with the channels first."""
    grid = torch.arange(48.0).reshape(6, 8)
    tokens = torch.cat([torch.full((extra,), -1.0), grid.flatten()])
    tokens = tokens[None, :, None] + torch.arange(7.0)
    for output in (tokens, *([tokens.transpose(1, 2)] if not extra else ())):
        (found,) = maps_of(output, SIZE)
        torch.testing.assert_close(found[0], grid + torch.arange(7.0)[:, None, None])


class Fixed(nn.Module):
    """Takes 64 x 64 alone, and its train() returns nothing."""

    img_size = 64

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, x, mask=torch.ones(1)):  # noqa: B008
        assert x.shape[-2:] == (64, 64) and mask is None
        return self.conv(x).flatten(2).transpose(1, 2)

    def train(self, mode=True):
        super().train(mode)


def test_sizes_that_a_network_takes(capsys):
    network = Network(Fixed(), 'fixed')
    assert network.accepted_size(96, 128) == (64, 64)
    assert 'fixed takes 64 x 64, not 96 x 128 (AssertionError' in capsys.readouterr().err
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 4, 8, 8)
    assert network.accepted_size(64, 64) == (64, 64)
    assert not capsys.readouterr().err
    network.stage = 3
    with pytest.raises(UserError, match='expected -1 to 0'):
        network.accepted_size(96, 128)
    assert (64, 96) in sizes_to_try(nn.Identity(), (70, 100))


def test_grey_images():
    found = run_network(nn.Conv2d(1, 2, 1), torch.rand(1, 3, 4, 4))
    assert found.shape == (1, 2, 4, 4)


@pytest.mark.parametrize(
    ('spec', 'channels'),
    [
        ("dict(type='mmdet.SwinTransformer', depths=[1, 1, 1, 1], embed_dims=24)", 192),
        ("dict(type='mmseg.SwinTransformer', depths=[1, 1, 1, 1], embed_dims=24)", 192),
        ("dict(type='mmdet.ResNet', depth=18, base_channels=8)", 64),
        ("dict(type='mmseg.MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1])", 64),
        ("dict(type='mmpretrain.VisionTransformer', arch='deit-tiny', img_size=64)", 192),
        ("dict(type='mmpretrain.ConvNeXt', arch='atto')", 320),
    ],
)
def test_networks_of_other_packages(spec, channels):
    """They have train() that returns nothing, class tokens, and pooled maps."""
    network = load_network(spec)
    assert not network.module.training
    assert not any(p.requires_grad for p in network.module.parameters())
    found = network(torch.rand(1, 3, 64, 96))
    assert found.shape[1] == channels and tuple(found.shape[2:]) in ((2, 3), (4, 6))


def test_weights_of_other_packages(tmp_path):
    """Of a detector with such a backbone, and of the backbone alone."""
    spec = "dict(type='mmdet.ResNet', depth=18, base_channels=8)"
    state = load_network(spec, seed=7).module.state_dict()
    whole = {f'backbone.{key}': value for key, value in state.items()}
    for content in (dict(state_dict={**whole, 'neck.x': torch.zeros(1)}), state):
        torch.save(content, tmp_path / 'w.pth')
        found = load_network(spec, str(tmp_path / 'w.pth')).module.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_configs_without_files_of_weights():
    pretrained = dict(type='Pretrained', checkpoint='x.pth')
    constant = dict(type='Constant', val=0)
    cfg = dict(
        pretrained='x.pth',
        backbone=dict(type='A', pretrained=True, init_cfg=pretrained),
        heads=[dict(type='B', init_cfg=constant), dict(type='C', init_cfg=[constant, pretrained])],
    )
    assert without_pretrained(cfg) == dict(
        backbone=dict(type='A', pretrained=False),
        heads=[dict(type='B', init_cfg=constant), dict(type='C', init_cfg=[constant])],
    )


def test_names_without_a_scope(capsys):
    """Ours comes first, then those of the package that takes the arguments."""
    assert type(build_network(dict(type='VAN', arch='tiny'))).__module__.startswith('hybrid_mm.')
    capsys.readouterr()
    swin = dict(type='SwinTransformer', arch=dict(embed_dims=24, depths=[1] * 4, num_heads=[3] * 4))
    assert type(build_network(swin)).__module__.startswith('mmpretrain.')
    assert 'is mmpretrain.SwinTransformer here' in capsys.readouterr().err
    with pytest.raises(UserError, match=r"'SwinTransfomer' is not a network of .*did you mean"):
        build_network(dict(type='SwinTransfomer'))


def test_images_are_normalised_once():
    network = Network(nn.Identity(), 'x', mean=(1, 2, 3), std=(1, 1, 2), bgr=True)
    image = np.zeros((2, 2, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    assert network.normalise(image)[:, 0, 0].tolist() == [29, 18, 3.5]
