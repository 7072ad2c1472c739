"""NAT, DiNAT, DiNAT_s: sizes of the variants, dilations, small maps."""

import pytest
import torch
from torch import nn

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.backbones import NAT, DiNAT, DiNATs
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d

SMALL = dict(embed_dim=8, depths=[2, 3], heads=[1, 2], mlp_ratio=2.0, layer_scale=None)
# counted on the official code: parameters with 1000 classes, and of the maps of all stages
OFFICIAL = {
    (NAT, 'mini'): (19_984_174, 19_472_070),
    (NAT, 'tiny'): (27_901_582, 27_389_478),
    (NAT, 'small'): (50_743_297, 49_975_641),
    (NAT, 'base'): (89_769_652, 88_746_444),
    (DiNAT, 'mini'): (19_984_174, 19_472_070),
    (DiNAT, 'tiny'): (27_901_582, 27_389_478),
    (DiNAT, 'small'): (50_719_681, 49_952_025),
    (DiNAT, 'base'): (89_769_652, 88_746_444),
    (DiNAT, 'large'): (200_943_514, 199_409_202),
    (DiNATs, 'tiny'): (28_288_354, 27_520_698),
    (DiNATs, 'small'): (49_606_258, 48_838_602),
    (DiNATs, 'base'): (87_768_224, 86_745_016),
    (DiNATs, 'large'): (196_532_476, 194_998_164),
}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(('kind', 'arch'), OFFICIAL)
def test_parameters(kind, arch):
    with torch.device('meta'):
        classifier, dense = kind(arch, out_indices=(3,)), kind(arch)
    head = classifier.stage_channels[-1] * 1000 + 1000
    assert (parameters(classifier) + head, parameters(dense)) == OFFICIAL[kind, arch]


def test_window_of_11():
    with torch.device('meta'):
        model = DiNAT('large', kernel_size=11, out_indices=(3,))
    assert parameters(model) + 1536 * 1000 + 1000 == 201_144_250


@pytest.mark.parametrize(('arch', 'gmac'), [('mini', 2.7), ('tiny', 4.3), ('small', 7.8)])
def test_multiply_adds(arch, gmac):
    with torch.device('meta'):
        model = NAT(arch, out_indices=(3,))
    assert complexity(model, (224, 224))[1] / 1e9 == pytest.approx(gmac, abs=0.08)


@pytest.mark.parametrize('kind', [DiNAT, DiNATs])
@pytest.mark.parametrize('variant', ['tiny', 'large'])
def test_recipes(kind, variant):
    for name in kind.recipes:
        with torch.device('meta'):
            model = kind(variant, dilations=name)
        layers = [m for m in model.modules() if isinstance(m, NeighborhoodAttention2d)]
        assert [m.dilation for m in layers] == [d for row in model.dilations for d in row]
        assert list(map(len, model.dilations)) == model.depths
    with torch.device('meta'):
        coco = kind(variant, dilations='coco').dilations
    expected = {
        DiNAT: ([1, 28, 1], [1, 7, 1, 14], [1, 3, 1, 3, 1]),
        DiNATs: ([1, 28], [1, 14], [1, 3]),
    }[kind]
    assert [coco[0], coco[1], coco[3]] == list(expected)
    assert coco[2][:6] == [1, 3, 1, 5, 1, 7]


def test_mask2former_recipe():
    with torch.device('meta'):
        model = DiNAT('large', kernel_size=11, dilations='mask2former')
    assert model.dilations[2] == [1, 2, 1, 3] * 4 + [1, 3]


def test_small_maps_are_filled_up():
    """Padded pixels take part with the biases of the projection, as the published code does."""
    torch.manual_seed(0)
    layer = NeighborhoodAttention2d(8, 2, 3, 4).double()
    nn.init.normal_(layer.qkv.bias)
    nn.init.normal_(layer.relative_bias)
    x = torch.randn(1, 9, 20, 8, dtype=torch.float64)
    padded = torch.zeros(1, 12, 20, 8, dtype=torch.float64)
    padded[:, :9] = x
    torch.testing.assert_close(layer(x), layer(padded)[:, :9])


def test_a_loop_over_queries():
    """The definition, query by query, for one dilated layer at the border and inside."""
    torch.manual_seed(0)
    heads, dim, k, dilation, height, width = 2, 8, 3, 2, 9, 8
    layer = NeighborhoodAttention2d(dim, heads, k, dilation).double()
    nn.init.normal_(layer.relative_bias)
    x = torch.randn(1, height, width, dim, dtype=torch.float64)
    q, key, v = layer.qkv(x)[0].unflatten(2, (3, heads, -1)).unbind(2)

    def seen(i, length):
        p, group = divmod(i, dilation)
        count = -(-(length - group) // dilation)
        start = min(max(p - k // 2, 0), count - k)
        return [(group + dilation * (start + t), start + t - p + k - 1) for t in range(k)]

    for i in range(height):
        for j in range(width):
            out = []
            for head in range(heads):
                pairs = [(a, b) for a in seen(i, height) for b in seen(j, width)]
                logits = torch.stack(
                    [
                        q[i, j, head] @ key[a, b, head] * (dim // heads) ** -0.5
                        + layer.relative_bias[head, s, t]
                        for (a, s), (b, t) in pairs
                    ]
                )
                values = torch.stack([v[a, b, head] for (a, _), (b, _) in pairs])
                out.append(logits.softmax(0) @ values)
            torch.testing.assert_close(layer(x)[0, i, j], layer.proj(torch.cat(out)))


def test_weights_fit_any_dilation_and_window(tmp_path):
    source = NAT(SMALL, out_indices=(1,))
    torch.save(source.state_dict(), tmp_path / 'nat.pth')
    dilated = DiNAT(SMALL, dilations=[[1, 2], [1, 3]], out_indices=(0, 1))
    dilated.load_pretrained(str(tmp_path / 'nat.pth'))
    attn, own = (m.stages[1].blocks[2].attn for m in (dilated, source))
    assert torch.equal(attn.relative_bias, own.relative_bias)
    assert (attn.dilation, dilated.stages[1].blocks[1].attn.dilation) == (1, 3)
    wide = NAT(SMALL, kernel_size=11, out_indices=(1,))
    wide.load_pretrained(str(tmp_path / 'nat.pth'))
    assert wide.stages[0].blocks[0].attn.relative_bias.shape == (1, 21, 21)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: NAT('large'), "NAT has no arch 'large'"),
        (lambda: NAT(SMALL, kernel_size=4, out_indices=(0,)), 'kernel_size must be odd and pos'),
        (lambda: NAT(SMALL, dilations=[[1]]), 'dilations of NAT: a list of dilations from 1 for'),
        (lambda: NAT(SMALL, dilations=[]), 'dilations of NAT: a list of dilations from 1 for'),
        (lambda: DiNAT(SMALL, dilations=[[1], [0]]), 'dilations of DiNAT: a list of dilations fr'),
        (lambda: DiNAT('mini', 'lvis'), 'dilations of DiNAT must be one of in1k, in1k-384, coco'),
        (lambda: DiNATs('tiny', 'mask2former'), 'dilations of DiNATs must be one of in1k'),
        (lambda: NAT(dict(SMALL, heads=[3, 2])), 'heads must divide the 8 channels, got 3'),
        (lambda: NeighborhoodAttention2d(8, 2, 3, 0), 'dilation must be positive, got 0'),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
