"""PVT: sizes of the variants, class token, position embeddings, and ACmix on it."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import PVT
from hybrid_mm.layers.attention.spatial_reduction_attention import (
    ACmixSpatialReductionAttention,
    SpatialReductionAttention,
)

HEAD = 512 * 1000 + 1000
SMALL = dict(depths=[1, 1], embed_dims=[8, 12], heads=[1, 2], mlp_ratios=[2, 2], reductions=[2, 1])
# counted on the official code: parameters with 1000 classes and of the maps, 1e9 multiply-adds
OFFICIAL = {
    'tiny': (13_229_288, 12_714_752, 1.933),
    'small': (24_485_864, 23_971_328, 3.816),
    'medium': (44_208_104, 43_693_568, 6.659),
    'large': (61_369_320, 60_854_784, 9.814),
}


def classifier(arch, **kwargs):
    return PVT(arch, class_token=True, out_indices=(3,), **kwargs)


@pytest.mark.parametrize('arch', OFFICIAL)
def test_parameters_and_multiply_adds(arch):
    with torch.device('meta'):
        found, dense = complexity(classifier(arch), (224, 224)), PVT(arch)
    parameters, of_maps, gmac = OFFICIAL[arch]
    assert found[0] + HEAD == parameters
    assert sum(p.numel() for p in dense.parameters()) == of_maps
    assert (found[1] + 512 * 1000) / 1e9 == pytest.approx(gmac, rel=0.005)


@pytest.mark.parametrize(('arch', 'parameters', 'gmac'), [('tiny', 13_396_128, 2.0),
                                                         ('small', 24_824_755, 3.9)])  # fmt: skip
def test_with_acmix_it_is_as_large_as_the_paper_prints(arch, parameters, gmac):
    with torch.device('meta'):
        found = complexity(classifier(arch, acmix=True), (224, 224))
    assert found[0] + HEAD == parameters
    # the multiplications of the interpolation are not counted
    assert found[1] / 1e9 == pytest.approx(gmac, rel=0.03)


def test_classifier_into_a_dense_network_for_another_size(tmp_path):
    torch.manual_seed(0)
    kwargs = dict(class_token=True, out_indices=(1,))
    source = PVT(SMALL, img_size=64, **kwargs)
    head = {'head.weight': torch.ones(5, 12), 'head.bias': torch.ones(5)}
    torch.save(source.state_dict() | head, tmp_path / 'cls.pth')
    same, other = (PVT(SMALL, img_size=size, out_indices=(0, 1)) for size in (64, 96))
    for model in (same, other):
        model.eval().load_pretrained(str(tmp_path / 'cls.pth'))
    assert other.stages[1].embed.position.shape == (1, 1 + 12 * 12, 12)
    x = torch.randn(1, 3, 64, 64)
    image = torch.randn(1, 3, 96, 96)
    for a, b in zip(same(image), other(image), strict=True):  # interpolated once, or at each call
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match=r'does not fit this PVT.*missing.*class_token'):
        torch.save(same.state_dict(), tmp_path / 'dense.pth')
        PVT(SMALL, img_size=64, **kwargs).load_pretrained(str(tmp_path / 'dense.pth'))
    assert source.eval()(x)[0].shape == (1, 12)


def test_arguments_of_mmdetection():
    from_theirs = PVT(pretrain_img_size=64, num_layers=[3, 4, 6, 3])
    ours = PVT('small', img_size=64)
    shapes = [
        {key: value.shape for key, value in m.state_dict().items()} for m in (from_theirs, ours)
    ]
    assert shapes[0] == shapes[1]
    arch = dict(num_layers=[1, 1], num_heads=[1, 2], sr_ratios=[4, 2])
    arch |= dict(embed_dims=[8, 16], mlp_ratios=[2, 2])
    made = PVT(arch, out_indices=1).arch
    assert (made.depths, made.heads, made.reductions) == ((1, 1), (1, 2), (4, 2))
    with pytest.raises(ValueError, match='pretrain_img_size is another name of img_size'):
        PVT(pretrain_img_size=64, img_size=64)


def test_partial_patches():
    torch.manual_seed(0)
    pad = PVT(SMALL, img_size=64, out_indices=(0, 1)).eval()
    drop = PVT(SMALL, img_size=64, out_indices=(0, 1), partial_patches='drop').eval()
    drop.load_state_dict(pad.state_dict())
    x = torch.randn(1, 3, 70, 41)
    assert [tuple(m.shape[2:]) for m in pad(x)] == [(18, 11), (9, 6)]
    assert [tuple(m.shape[2:]) for m in drop(x)] == [(17, 10), (8, 5)]
    for a, b in zip(drop(x), drop(x[..., :68, :40]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(('reduction', 'size', 'token'), [(1, (4, 5), 1), (2, (5, 6), 0)])
def test_acmix_step_by_step(reduction, size, token):
    """Attention and convolution written out with loops over heads and taps."""
    torch.manual_seed(0)
    heads, dim, width = 2, 8, 4
    layer = ACmixSpatialReductionAttention(dim, heads, reduction).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    count = size[0] * size[1]
    x = torch.randn(2, count + token, dim, dtype=torch.float64)
    q, k, v = layer.project(x, size)
    plain = SpatialReductionAttention(dim, heads, reduction).double()
    plain.load_state_dict({key: layer.state_dict()[key] for key in plain.state_dict()})
    expected = layer.rate1 * plain(x, size)
    reduced = tuple(side // reduction for side in size)
    maps = []
    for tensor, grid in ((q, size), (k, reduced), (v, reduced)):
        for head in range(heads):
            tokens = tensor[:, head, -grid[0] * grid[1] :]
            grids = tokens.transpose(1, 2).reshape(2, width, *grid)
            maps.append(F.interpolate(grids, size=size, mode='bilinear'))
    mixed = layer.mix.fc(torch.stack(maps, 1).transpose(1, 2).flatten(0, 1))  # (N d, 9, H, W)
    mixed = mixed.unflatten(0, (2, width))
    conv = torch.zeros(2, dim, *size, dtype=torch.float64)
    for j in range(width):
        for head in range(heads):
            kernel = layer.mix.dep_conv.weight[j * heads + head][None]
            conv[:, j * heads + head] = F.conv2d(mixed[:, j], kernel, padding=1)[:, 0]
    expected[:, token:] += layer.rate2 * conv.flatten(2).transpose(1, 2)
    torch.testing.assert_close(layer(x, size), expected)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='giant'), "PVT has no arch 'giant'"),
        (dict(arch=dict(SMALL, heads=[3, 2])), 'heads must divide the 8 channels, got 3'),
        (dict(img_size=100), 'img_size must be a multiple of 32, got 100'),
        (dict(partial_patches='crop'), "partial_patches must be one of pad, drop, got 'crop'"),
        (dict(class_token=True), r'out_indices must be \(3,\), got \(0, 1, 2, 3\)'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PVT(**kwargs)
