"""Networks in the words of timm's ByoModelCfg: those of its byoanet.py, and what is refused."""

from dataclasses import dataclass, field

import pytest
import torch

from hybrid_mm.backbones import BoTNet, HaloNet
from hybrid_mm.convert import convert


def stages(depths, channels, attention, ratios=(0.25,) * 4, group_size=0, strides=(1, 2, 2, 2)):
    """A dict per stage; attention is 'all', 'none', or what goes with ``types``."""
    found = []
    for d, c, kind, br, s in zip(depths, channels, attention, ratios, strides, strict=True):
        stage = dict(d=d, c=c, s=s, gs=group_size, br=br)
        if isinstance(kind, dict):
            stage |= dict(types=('bottle', 'self_attn'), **kind)
        else:
            stage['type'] = dict(all='self_attn', none='bottle')[kind]
        found.append(stage)
    return found


RESNET = (256, 512, 1024, 2048)
SOME = ['none', 'none', {}, 'all']
MANY = ['none', dict(every=4), {}, {}]
SE33 = stages(
    (2, 3, 3, 2),
    (256, 512, 1024, 1536),
    ['none', dict(every=[2]), dict(every=[2]), 'all'],
    (0.25, 0.25, 0.25, 0.333),
)
SE33 = dict(
    blocks=SE33, stem_chs=64, stem_type='tiered', stem_pool='', num_features=1280, attn_layer='se'
)
HALO26 = stages((2, 2, 2, 2), RESNET, SOME)
NEXT26 = stages((2, 2, 2, 2), RESNET, SOME, group_size=16)
TIERED = dict(stem_chs=64, stem_type='tiered', stem_pool='maxpool')
FOUR_HEADS = dict(
    self_attn_layer='halo', self_attn_kwargs=dict(block_size=8, halo_size=3, num_heads=4)
)
HALO = dict(self_attn_layer='halo', self_attn_kwargs=dict(block_size=8, halo_size=3))
BOT = dict(self_attn_layer='bottleneck', self_attn_kwargs=dict(), fixed_input_size=True)
NETWORKS = {
    'halonet26t': dict(
        blocks=HALO26,
        self_attn_layer='halo',
        self_attn_kwargs=dict(block_size=8, halo_size=2),
        **TIERED,
    ),
    'halonet50ts': dict(
        blocks=stages((3, 4, 6, 3), RESNET, ['none', dict(every=4, **FOUR_HEADS), {}, {}]),
        act_layer='silu',
        **TIERED,
        **HALO,
    ),
    'sehalonet33ts': dict(SE33, act_layer='silu', **HALO),
    'eca_halonext26ts': dict(
        blocks=NEXT26,
        act_layer='silu',
        attn_layer='eca',
        self_attn_layer='halo',
        self_attn_kwargs=dict(block_size=8, halo_size=2, dim_head=16),
        **TIERED,
    ),
    'haloregnetz_b': dict(
        blocks=stages(
            (2, 6, 12, 2),
            (48, 96, 192, 288),
            ['none', 'none', dict(every=3), 'all'],
            (3, 3, 3, 3),
            16,
            (2, 2, 2, 2),
        ),
        stem_pool='',
        downsample='',
        num_features=1536,
        act_layer='silu',
        attn_layer='se',
        attn_kwargs=dict(rd_ratio=0.25),
        block_kwargs=dict(bottle_in=True, linear_out=True),
        self_attn_layer='halo',
        self_attn_kwargs=dict(block_size=7, halo_size=2, qk_ratio=0.33),
    ),
    'halonet_h1': dict(
        blocks=stages((3, 3, 10, 3), (64, 128, 256, 512), ['all'] * 4, (1.0,) * 4),
        stem_chs=64,
        stem_type='7x7',
        **HALO,
    ),
    'botnet26t': dict(blocks=HALO26, **TIERED, **BOT),
    'botnet50ts': dict(
        blocks=stages((3, 4, 6, 3), RESNET, MANY), act_layer='silu', **TIERED, **BOT
    ),
    'sebotnet33ts': dict(SE33, act_layer='silu', self_attn_layer='bottleneck'),
    'eca_botnext26ts': dict(
        blocks=NEXT26,
        act_layer='silu',
        attn_layer='eca',
        self_attn_layer='bottleneck',
        self_attn_kwargs=dict(dim_head=16),
        **TIERED,
    ),
}
SMALL = dict(
    blocks=stages((1, 2), (32, 64), ['none', {}], (0.25, 0.25), strides=(1, 2)),
    stem_chs=16,
    **HALO,
)


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_of_timm(name):
    """What their description says is the variant of that name, whose weights timm publishes."""
    cls = HaloNet if 'halo' in name else BoTNet
    assert cls.resolve_arch(NETWORKS[name]) == cls.resolve_arch(name)


@pytest.mark.parametrize('name', [*NETWORKS, 'lambda_resnet26t', 'halo2botnet50ts_256'])
def test_the_same_from_timm_itself(name):
    timm = pytest.importorskip('timm')
    byoanet = pytest.importorskip('timm.models.byoanet')
    cls = HaloNet if 'halo' in name else BoTNet
    cfg = vars(byoanet.model_cfgs[name.removesuffix('_256')])
    if name not in NETWORKS:
        with pytest.raises(ValueError, match='self_attn_layer'):
            cls.resolve_arch(cfg)
        return
    sized = dict(canvas_size=(256, 256)) if cls is BoTNet else {}
    kwargs = dict(img_size=256) if sized else {}
    suffix = '_256' if sized else ''
    theirs = timm.create_model(name + suffix, num_classes=0, **kwargs)
    ours = cls(cfg, final_conv=bool(cfg['num_features']), out_indices=(3,), **sized)
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert {key: v.shape for key, v in convert(theirs.state_dict()).items()} == shapes


def small(**changes):
    return HaloNet.resolve_arch({**SMALL, **changes})


def blocks(index=1, **changes):
    found = [dict(stage) for stage in SMALL['blocks']]
    found[index] |= changes
    return found


@dataclass
class Block:
    """As timm's ByoBlockCfg."""

    type: str
    d: int
    c: int
    s: int = 2
    gs: int | None = None
    br: float = 1.0
    self_attn_kwargs: dict | None = None
    block_kwargs: dict = field(default_factory=dict)


def test_stages_of_single_blocks_and_objects():
    one = [[Block('bottle', 1, 32, 1, 0, 0.25)], [Block('bottle', 1, 64, 2, 0, 0.25)]]
    one[1].append(Block('self_attn', 1, 64, 2, 0, 0.25))
    assert small(blocks=one) == small()
    # settings of a block replace those of the network as a whole
    one[1][1].self_attn_kwargs = dict(halo_size=1, num_heads=4)
    found = small(blocks=one, self_attn_kwargs=dict(block_size=4))
    assert (found.block_size, found.halo_size, found.heads) == (8, 1, (8, 4))


@pytest.mark.parametrize(
    'stage, attends',
    [
        (dict(d=6), (1, 3, 5)),
        (dict(d=6, every=2), (2, 5)),
        (dict(d=6, every=2, first=True), (0, 3)),
        (dict(d=2, every=4), (1,)),  # none would have been left
        (dict(d=4, every=[0, 3]), (0, 3)),
        (dict(d=2, every=[0, 1]), True),
        (dict(d=2, every=[]), False),
    ],
)
def test_every_so_many_blocks_attend(stage, attends):
    assert small(blocks=blocks(**stage)).attention == (False, attends)


@pytest.mark.parametrize(
    'kind, pool, widths, strides',
    [
        ('3x3', 'maxpool', [16], [2]),
        ('7x7', '', [16], [2]),
        ('tiered', '', [6, 8, 16], [2, 1, 2]),
        ('tiered', 'max', [6, 8, 16], [2, 1, 1]),
        ('deep', 'maxpool', [16, 16, 16], [2, 1, 1]),
        ('quad', None, [2, 4, 8, 16], [2, 1, 1, 2]),
    ],
)
def test_stems(kind, pool, widths, strides):
    arch = {**SMALL, 'stem_type': kind, 'stem_pool': pool}
    model = HaloNet(arch, out_indices=(0, 1)).eval()
    convs = [layer.conv for layer in model.stem.layers]
    assert [conv.out_channels for conv in convs] == widths
    assert [conv.stride[0] for conv in convs] == strides
    assert {conv.kernel_size[0] for conv in convs} == {7 if kind == '7x7' else 3}
    stride = 2 if kind == '7x7' else 4
    assert model.map_strides == (stride, 2 * stride)
    assert [m.shape[-1] for m in model(torch.rand(1, 3, 64, 64))] == [64 // stride, 32 // stride]


def test_widths_gates_and_the_last_convolution():
    found = small(width_factor=0.75, num_features=100, attn_layer='se')
    assert (found.channels, found.stem.channels, found.final) == ((24, 48), 12, 75)
    assert (found.gate.kind, found.gate.place, found.gate.ratio) == ('se', 'mid', 16)
    last = dict(attn_last=True)
    one = [[dict(s, type='bottle', block_kwargs=last)] for s in blocks() if s.pop('types', 1)]
    found = small(blocks=one, attn_layer='eca')
    assert (found.gate.kind, found.gate.place) == ('eca', 'out-conv')
    assert small(attn_layer='se', blocks=blocks(attn_layer='se')).gate.kind == 'se'
    assert small(blocks=blocks(0, attn_layer='')) == small()


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(stem_typ='7x7'), r"unknown \['stem_typ'\]; did you mean stem_type"),
        (dict(blocks=blocks(k=3)), r"arch.blocks\[1\] of HaloNet .* unknown \['k'\]"),
        (dict(blocks=[dict(type='bottle', d=1)]), r"blocks\[0\] .* missing \['c'\]"),
        (dict(blocks=[[]]), r'arch.blocks\[0\] .*at least one block'),
        (dict(stem_type='rep'), "arch.stem_type of HaloNet: 'rep' cannot be expressed"),
        (dict(stem_pool='avg2'), "arch.stem_pool of HaloNet: 'avg2'"),
        (dict(stem_chs=[8, 16]), r'arch.stem_chs of HaloNet: \[8, 16\]'),
        (dict(downsample='avg'), "arch.downsample of HaloNet: 'avg'"),
        (dict(act_layer='gelu'), "arch.act_layer of HaloNet: 'gelu'"),
        (dict(norm_layer='groupnorm'), "arch.norm_layer of HaloNet: 'groupnorm'"),
        (dict(zero_init_last=False), 'arch.zero_init_last of HaloNet: False'),
        (dict(head_type='mlp'), "arch.head_type of HaloNet: 'mlp'"),
        (dict(attn_layer='cbam'), r"arch.blocks\[0\]\[0\].attn_layer of HaloNet: 'cbam'"),
        (dict(attn_layer='se', attn_kwargs=dict(rd_divisor=4)), 'attn_kwargs.*rd_divisor'),
        (
            dict(self_attn_layer='lambda'),
            r"\[1\].self_attn_layer of HaloNet: 'lambda' .*'halo'",
        ),
        (dict(self_attn_kwargs=dict(r=9)), r"self_attn_kwargs of HaloNet: \{'r': 9\}"),
        (dict(self_attn_kwargs=dict(qkv_bias=True)), 'qkv_bias=True as an argument of HaloNet'),
        (dict(block_kwargs=dict(extra_conv=True)), r"block_kwargs of HaloNet: \{'extra_conv'"),
        (dict(blocks=blocks(0, type='basic')), r"blocks\[0\]\[0\].type of HaloNet: 'basic'"),
        (dict(blocks=blocks(types=('bottle',))), r'blocks\[1\].types of HaloNet'),
        (dict(blocks=blocks(gs=max)), r'blocks\[1\]\[0\].gs of HaloNet'),
        (
            dict(blocks=blocks(gs=8)),
            r'gs of HaloNet: 8 .* with 0 of blocks\[0\]',
        ),
        (dict(blocks=blocks(attn_layer='se')), r"attn_layer of HaloNet: .*'se'.* with None"),
        (dict(blocks=blocks(block_kwargs=dict(bottle_in=True))), 'block_kwargs of HaloNet: True'),
    ],
)
def test_what_cannot_be_expressed_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        small(**change)
