"""The ResNet core against torchvision, and what AA-ResNet and SASA put on it."""

import pytest
import torch
import torchvision
from mmengine.registry import MODELS as ROOT
from torch import nn

from hybrid_mm.backbones import AAResNet, ResNet, SASAResNet
from hybrid_mm.convert import convert
from hybrid_mm.layers import AAConv2d, AttentionStem, LocalSelfAttention2d

# Classifiers with 1000 classes: the plain networks, and the counts that the papers round
PLAIN = {'r18': 11689512, 'r34': 21797672, 'r26': 13696552, 'r38': 19626792, 'r50': 25557032,
         'r101': 44549160, 'r152': 60192808}  # fmt: skip
AUGMENTED = {'r34': 20745072, 'r50': 25777392, 'r101': 45354728, 'r152': 61549536}
# convolution stem, the same with tables per head, attention stem
SASA = {
    'r26': (10331264, 10342632, 10323200),
    'r38': (14173384, 14190632, 14165320),
    'r50': (18015504, 18038632, 18007440),
}


class Plain(ResNet):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.build()


def classifier(model):
    """Parameters with a linear head of 1000 classes."""
    head = 1000 * model.out_channels[-1] + 1000
    return sum(p.numel() for p in model.parameters()) + head


@pytest.mark.parametrize('arch', PLAIN)
def test_parameters(arch):
    with torch.device('meta'):
        assert classifier(Plain(arch)) == PLAIN[arch]


@pytest.mark.parametrize('arch', AUGMENTED)
def test_parameters_of_aa_resnet(arch):
    with torch.device('meta'):
        assert classifier(AAResNet(arch)) == AUGMENTED[arch]


@pytest.mark.parametrize('arch', SASA)
def test_parameters_of_sasa(arch):
    with torch.device('meta'):
        found = [
            classifier(SASAResNet(arch, **kwargs))
            for kwargs in ({}, dict(share_rel=False), dict(stem='attention'))
        ]
    assert tuple(found) == SASA[arch]


@pytest.mark.parametrize('depth', [18, 50])
def test_equals_torchvision(depth):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f'resnet{depth}')().eval()
    ours = Plain(f'r{depth}').eval()
    state = convert(theirs.state_dict())
    heads = {key: state.pop(key) for key in ('head.weight', 'head.bias')}
    ours.load_state_dict(state)
    x = torch.rand(1, 3, 65, 98)
    with torch.no_grad():
        out = ours(x)[-1].mean((2, 3)) @ heads['head.weight'].T + heads['head.bias']
        torch.testing.assert_close(out, theirs(x))


def test_strides_and_dilations():
    model = Plain('r18', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)).eval()
    assert [m.shape[-1] for m in model(torch.rand(1, 3, 33, 64))] == [16, 8, 8, 8]
    assert all(c.dilation == (4, 4) for b in model.stages[3].blocks for c in (b.conv1, b.conv2))
    with pytest.raises(ValueError, match='Plain: strides must have one entry for each of the 4'):
        Plain('r18', strides=(1, 2))


@pytest.mark.parametrize('arch', ['r18', 'r50'])
def test_blocks_start_as_their_shortcuts(arch):
    block = Plain(arch).stages[0].blocks[1].eval()
    x = torch.rand(1, Plain(arch).stage_channels[0], 8, 8)
    assert torch.equal(block(x), x)
    block = Plain(arch, zero_init_residual=False).stages[0].blocks[1].eval()
    assert not torch.equal(block(x), x)


def test_augmented_convolutions_and_their_widths():
    def widths(model):
        convs = [stage.blocks[0] for stage in model.stages]
        convs = [b.conv2 if isinstance(b.conv2, AAConv2d) else b.conv1 for b in convs]
        return [(c.widths[0], c.widths[2]) for c in convs if isinstance(c, AAConv2d)]

    with torch.device('meta'):
        assert widths(AAResNet('r50')) == [(160, 16), (160, 24), (160, 48)]
        # a fifth and a tenth of the channels, in basic blocks a quarter of both
        assert widths(AAResNet('r50', min_key_dim=1)) == [(24, 16), (48, 24), (104, 48)]
        assert widths(AAResNet('r34', min_key_dim=1)) == [(32, 32), (64, 64), (128, 128)]
        basic = AAResNet('r34')
        assert widths(basic) == [(160, 32), (160, 64), (160, 128)]
    assert all(isinstance(b.conv2, nn.Conv2d) for stage in basic.stages for b in stage.blocks)


def test_tables_follow_the_canvas():
    with torch.device('meta'):
        model = AAResNet('r50', canvas_size=(640, 480))
        without = AAResNet('r50', canvas_size=None)
    sizes = [[b.conv2.relative.size for b in stage.blocks] for stage in model.stages[1:]]
    assert [set(s) for s in sizes] == [{(40, 30)}, {(40, 30)}, {(20, 15)}]
    assert not any('relative' in name for name, _ in without.named_parameters())


TINY = dict(stem=8, bottleneck=True, depths=[1, 1], widths=[8, 8], out_channels=[16, 16])


def test_weights_of_another_canvas_are_fitted(tmp_path):
    kwargs = dict(heads=2, min_key_dim=4, augmented=(False, True), attn_downsample=False)
    kwargs |= dict(strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    source = AAResNet(TINY, canvas_size=(64, 64), **kwargs).eval()
    torch.save(source.state_dict(), tmp_path / 'x.pth')
    smaller = AAResNet(TINY, canvas_size=(32, 48), **kwargs).eval()
    smaller.load_pretrained(str(tmp_path / 'x.pth'))
    x = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(smaller(x), source(x))  # the middle of the tables: the same numbers
    larger = AAResNet(TINY, canvas_size=(96, 80), **kwargs)
    larger.load_pretrained(str(tmp_path / 'x.pth'))
    ends = [m.stages[1].blocks[0].conv2.relative.rel_h[:, [0, -1]] for m in (larger, source)]
    torch.testing.assert_close(*ends)


def test_sasa_stages_and_stems():
    with torch.device('meta'):
        model = SASAResNet('r26', stem='attention', heads=(0, 0, 8, 8))
        default = SASAResNet('r26')
    assert isinstance(model.stem.attn, AttentionStem)
    kinds = [
        {isinstance(b.conv2, LocalSelfAttention2d) for b in stage.blocks} for stage in model.stages
    ]
    assert kinds == [{False}, {False}, {True}, {True}]
    layers = [m for m in default.modules() if isinstance(m, LocalSelfAttention2d)]
    assert len(layers) == 8
    assert {(m.kernel_size, m.heads) for m in layers} == {(7, 8)}
    assert (model.stem.attn.heads, len(model.stem.attn.value_conv)) == (4, 4)  # appendix A.1


def test_stages_without_heads_are_those_of_a_resnet():
    settings = dict(arch=TINY, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    plain = Plain(**settings).eval()
    x = torch.rand(1, 3, 65, 98)
    augmented = dict(canvas_size=(64, 96), augmented=True, attn_downsample=False)
    for cls, kwargs in ((SASAResNet, {}), (AAResNet, augmented)):
        bare = cls(heads=0, **kwargs, **settings).eval()
        bare.load_state_dict(plain.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(bare(x), plain(x), strict=True))
        mixed = cls(heads=(0, 2), **kwargs, **settings)
        spatial = [type(stage.blocks[0].conv2) for stage in mixed.stages]
        assert spatial == [nn.Conv2d, LocalSelfAttention2d if cls is SASAResNet else AAConv2d]
        with pytest.raises(ValueError, match='heads'):
            cls(heads=-1, **kwargs, **settings)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(stem='patch'), "stem must be one of conv, attention, got 'patch'"),
        (dict(arch={**TINY, 'bottleneck': False}, strides=(1, 2), dilations=(1, 1)), 'bottlenecks'),
        (dict(arch='r101'), "SASAResNet has no arch 'r101'"),
    ],
)
def test_bad_arguments_of_sasa(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SASAResNet(**kwargs)


def test_conv_cfg_of_necks_and_heads():
    """3x3 convolutions become attention, 1x1 ones stay; the passes of a head leave it alone."""
    cfg = dict(type='hybrid_mm.SASAConv2d', window=5, heads=4)
    fpn = ROOT.build(
        dict(
            type='mmdet.FPN',
            in_channels=[8, 12],
            out_channels=16,
            num_outs=4,
            add_extra_convs='on_output',
            conv_cfg=cfg,
            norm_cfg=dict(type='BN'),
        )
    )
    assert all(type(m.conv) is nn.Conv2d for m in fpn.lateral_convs)
    assert all(isinstance(m.conv, LocalSelfAttention2d) for m in fpn.fpn_convs)
    assert all(m.conv.bias is None for m in fpn.fpn_convs)
    maps = fpn((torch.rand(1, 8, 9, 14), torch.rand(1, 12, 5, 7)))
    assert [tuple(m.shape[-2:]) for m in maps] == [(9, 14), (5, 7), (3, 4), (2, 2)]

    anchors = dict(
        type='AnchorGenerator',
        octave_base_scale=4,
        scales_per_octave=3,
        ratios=[1.0],
        strides=[8, 16, 32, 64, 128],
    )
    head = ROOT.build(
        dict(
            type='mmdet.RetinaHead',
            num_classes=2,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            conv_cfg=cfg,
            anchor_generator=anchors,
        )
    )
    layer = head.cls_convs[0].conv
    before = layer.query_conv.weight.clone()
    head.init_weights()
    assert torch.equal(layer.query_conv.weight, before)
    assert head.retina_cls.weight.std() < 0.02
    nn.init.constant_(layer.bias, 1.0)
    x = torch.rand(1, 16, 6, 6)
    torch.testing.assert_close(layer(x), LocalSelfAttention2d.forward(layer, x) + 1)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(kernel_size=3, padding=0), 'groups 1 and padding 1 .* padding 0'),
        (dict(kernel_size=3, padding=1, groups=4), 'got groups 4'),
        (dict(kernel_size=(3, 5), padding=1), r'same kernel_size in both directions, got \(3, 5\)'),
    ],
)
def test_bad_convolutions_to_replace(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ROOT.get('hybrid_mm.SASAConv2d')(16, 16, **kwargs)
