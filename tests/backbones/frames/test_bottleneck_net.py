"""What is HaloNet's and BoTNet's own; what holds for every backbone is in test_all.py."""

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import BoTNet, HaloNet
from hybrid_mm.backbones.frames.bottleneck_net import GateArch
from hybrid_mm.layers import BottleneckAttention, HaloAttention

# Classifiers with 1000 classes and the final convolution where the variant has one: timm's counts,
# and those of the paper's table 2
HALONETS = {
    'h0': 5502248, 'h1': 8101352, 'h2': 9405608, 'h3': 11842792, 'h4': 19103464, 'h5': 30718952,
    'h6': 43458280, 'h7': 67434728, 'halonet26t': 12480288, 'halonet50ts': 22733280,
    'sehalonet33ts': 13691712, 'eca_halonext26ts': 10756885, 'haloregnetz_b': 11680072,
    'halonet_h1': 8100056,
}  # fmt: skip
# (variant, image size, strides): timm's, distribuuuu's, and ResNet less 3x3 plus attention
BOTNETS = {
    ('bot50', 1024, None): 20903208,
    ('bot101', 1024, None): 39895336,
    ('bot152', 1024, None): 55538984,
    ('bot50', 224, (1, 2, 2, 1)): 20859176,
    ('botnet26t', 256, None): 12488672,
    ('botnet26t', 1024, None): 12537824,
    ('botnet50ts', 256, None): 22742688,
    ('sebotnet33ts', 256, None): 13701984,
    ('eca_botnext26ts', 256, None): 10593301,
}
BACKBONES = {'halonet26t': 10431288, 'halonet50ts': 20684280, 'halonet_h1': 7587056}
TINY = dict(
    depths=[1, 1, 1, 2],
    channels=[8, 8, 8, 16],
    heads=[2] * 4,
    attention=[False, False, False, True],
    stem=dict(kind='7x7', channels=8, pool=True),
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def classifier(cls, arch, **kwargs):
    final = cls.resolve_arch(arch).final is not None
    model = cls(arch, final_conv=final, **kwargs)
    return count(model) + 1000 * model.out_channels[-1] + 1000


@pytest.mark.parametrize('arch', HALONETS)
def test_parameters_of_halonets(arch):
    with torch.device('meta'):
        assert classifier(HaloNet, arch) == HALONETS[arch]
        if arch in BACKBONES:
            assert count(HaloNet(arch)) == BACKBONES[arch]


@pytest.mark.parametrize(('arch', 'size', 'strides'), BOTNETS)
def test_parameters_of_botnets(arch, size, strides):
    with torch.device('meta'):
        found = classifier(BoTNet, arch, canvas_size=(size, size), strides=strides)
        assert found == BOTNETS[arch, size, strides]
        if (arch, size) == ('botnet26t', 256):
            assert count(BoTNet(arch, canvas_size=(size, size))) == 10439672


@pytest.mark.parametrize('layers', [59, 77, 110, 128])
def test_names_of_the_large_classifiers_count_their_layers(layers):
    with torch.device('meta'):
        model = BoTNet(f's1-{layers}', canvas_size=(224, 224))
    assert 3 * sum(model.depths) + 2 == layers
    attention = [m for m in model.modules() if isinstance(m, BottleneckAttention)]
    assert len(attention) == model.depths[-1]
    assert all(m.relative.rel_h.shape == (1, 27, 128) for m in attention)  # 14 x 14 everywhere
    assert all(isinstance(m, nn.SiLU) for n, m in model.named_modules() if n.endswith('.act'))
    gates = [n for n, _ in model.named_modules() if n.endswith('gate')]
    assert len(gates) == sum(model.depths[:-1])  # in blocks without attention
    assert {block.gate_place for stage in model.stages[:-1] for block in stage.blocks} == {'out'}
    for alias in dict(BoTNet.arch_aliases):
        assert BoTNet.resolve_arch(alias).strides == (1, 2, 2, 1)


# 10^6 parameters that the authors' counting script gives without SE in the blocks with attention
@pytest.mark.parametrize(
    'arch, side, millions',
    [('t3', 224, 30.4), ('t4', 224, 51.6), ('t5', 256, 69.0), ('t6', 320, 47.8), ('t7', 384, 69.0)],
)
def test_parameters_of_the_large_classifiers(arch, side, millions):
    with torch.device('meta'):
        found = classifier(BoTNet, arch, canvas_size=(side, side)) / 1e6
    assert found == pytest.approx(millions, rel=0.005)


def test_tables_have_the_size_of_the_map_before_its_stride():
    with torch.device('meta'):
        model = BoTNet('bot50', canvas_size=(1024, 768))
    shapes = [block.conv2.relative.size for block in model.stages[3].blocks]
    assert shapes == [(64, 48), (32, 24), (32, 24)]


def attention_blocks(model):
    kinds = (HaloAttention, BottleneckAttention)
    return [[i for i, b in enumerate(s.blocks) if isinstance(b.conv2, kinds)] for s in model.stages]


@pytest.mark.parametrize(
    'arch, blocks',
    [
        ('halonet26t', [[], [], [1], [0, 1]]),
        ('halonet50ts', [[], [3], [1, 3, 5], [1]]),
        ('haloregnetz_b', [[], [], [3, 7, 11], [0, 1]]),
        ('r50-se', [[], [], [], []]),
        ('r50-se-b32', [[], [], [], [0, 1, 2]]),
        ('h7-conv2', [[], [], list(range(26)), [0, 1, 2]]),
    ],
)
def test_blocks_with_attention(arch, blocks):
    with torch.device('meta'):
        model = HaloNet(arch)
    assert attention_blocks(model) == blocks
    sizes = {m.block_size for m in model.modules() if isinstance(m, HaloAttention)}
    assert sizes == ({model.arch.block_size} if any(blocks) else set())


def test_blocks_and_shortcuts():
    model = BoTNet(TINY, canvas_size=(64, 64), shortcut_act=True)
    first, second = model.stages[3].blocks
    assert isinstance(first.shortcut.act, nn.ReLU)
    assert isinstance(second.shortcut, nn.Identity)
    assert not hasattr(model.stages[1].blocks[0].shortcut, 'act')  # no attention there
    assert first.norm3.weight.abs().max() == 0
    plain = BoTNet(TINY, canvas_size=(64, 64), zero_init_residual=False)
    assert plain.stages[3].blocks[0].norm3.weight.min() == 1
    assert not hasattr(plain.stages[3].blocks[0].shortcut, 'act')
    x = torch.rand(1, 8, 4, 4)
    # the last norm is zero at the start: what is left is the shortcut
    block = first.eval()
    torch.testing.assert_close(block(x), block.out_act(block.shortcut(x)))
    bare = HaloNet(dict(TINY, shortcut=False, linear_out=True)).stages[3].blocks[0].eval()
    assert bare.shortcut is None
    assert bare.norm3.weight.min() == 1
    assert bare(torch.randn(1, 8, 4, 4)).min() < 0


def test_final_convolution_follows_the_last_stage():
    arch = dict(TINY, final=24)
    model, plain = HaloNet(arch, final_conv=True).eval(), HaloNet(arch).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    assert model.out_channels == (8, 8, 8, 24)
    assert plain.out_channels == (8, 8, 8, 16)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model(x)[3], model.stages[3].final(plain(x)[3]))
    with pytest.raises(ValueError, match='final_conv must be False'):
        HaloNet('halonet26t', final_conv=True)


def test_arch_from_a_variant():
    with torch.device('meta'):
        model = HaloNet(dict(base='r50-se-b8', block_size=16, act='relu'))
        assert count(model) == count(HaloNet('r50-se-b8')) + 3 * 2 * 2 * 8 * 64
    assert model.arch.gate == GateArch(kind='se', place='out', ratio=16)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(act='gelu'), "act must be one of relu, silu, got 'gelu'"),
        (dict(stem=dict(kind='5x5', channels=8, pool=True)), r'stem.kind must be one of 7x7'),
        (dict(gate=dict(kind='sk', place='mid')), 'gate.kind must be one of se, eca'),
        (
            dict(gate=dict(kind='se', place='in')),
            'gate.place must be one of mid, out, out-conv',
        ),
        (dict(attention=[(2,), False, False, True]), r'stage 0 must name blocks 0..0, got \(2,\)'),
        (dict(group_size=3), 'group_size 3 does not divide the 8 channels'),
        (dict(heads=[2]), 'one entry per stage expected'),
        (dict(width=3), r"unknown \['width'\]"),
        (dict(base='r5-se'), 'did you mean'),
    ],
)
def test_bad_arch(change, message):
    with pytest.raises(ValueError, match=message):
        HaloNet({**TINY, **change})


@pytest.mark.parametrize('position', ['relative', 'absolute'])
def test_checkpoint_of_another_size(position, tmp_path):
    torch.manual_seed(0)
    source = BoTNet(TINY, canvas_size=(128, 96), position=position)
    torch.save(source.state_dict(), tmp_path / 'x.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    target = BoTNet(TINY, canvas_size=(64, 160), position=position, init_cfg=init)
    target.init_weights()
    names = {'relative': ('rel_h', 'rel_w'), 'absolute': ('emb_h', 'emb_w')}[position]
    old = getattr(source.stages[3].blocks[0].conv2, position)
    new = getattr(target.stages[3].blocks[0].conv2, position)
    lengths = (7, 19) if position == 'relative' else (4, 10)
    assert [getattr(new, n).shape[-2] for n in names] == list(lengths)
    if position == 'relative':
        torch.testing.assert_close(new.rel_h, old.rel_h[:, 4:11])  # 8 rows to 4
        torch.testing.assert_close(new.rel_w[:, [0, 9, 18]], old.rel_w[:, [0, 5, 10]])
    x = torch.rand(1, 3, 64, 96)
    a, b = source.eval()(x), target.eval()(x)
    torch.testing.assert_close(a[2], b[2])
    kept = BoTNet(TINY, (64, 160), position, table_policy='reset', init_cfg=init)
    before = getattr(getattr(kept.stages[3].blocks[0].conv2, position), names[0]).clone()
    kept.init_weights()
    assert torch.equal(
        getattr(kept.stages[3].blocks[0].conv2, position).get_parameter(names[0]), before
    )
    with pytest.raises(ValueError, match="table_policy must be one of resize, reset, got 'clamp'"):
        BoTNet(TINY, table_policy='clamp')


def test_content_and_position_alone():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    content = BoTNet(TINY, canvas_size=(64, 64), position='none', zero_init_residual=False).eval()
    assert not any('rel_' in name for name, _ in content.named_parameters())
    position = BoTNet(TINY, canvas_size=(64, 64), content=False, zero_init_residual=False).eval()
    full = BoTNet(TINY, canvas_size=(64, 64))
    assert count(full) - count(position) == 2 * 8 * 8  # no key projection in two blocks
    assert content(x)[3].isfinite().all()
    assert position(x)[3].isfinite().all()
