"""The contract that every backbone keeps. A new backbone adds one line to ``CASES``.

The checks themselves are in ``hybrid_mm.testing``; here is which networks are checked, and what is
known about them.
"""

import copy
import inspect

import pytest
import torch

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.backbones import BaseBackbone
from hybrid_mm.registry import MODELS
from hybrid_mm.testing import BACKBONE_CHECKS, Expected, check_backbone

_VAN = dict(
    type='hybrid_mm.VAN',
    arch=dict(embed_dims=[8, 12, 16, 20], depths=[1, 2, 1, 1], mlp_ratios=[4, 4, 2, 2]),
)
_RESNET = dict(
    arch=dict(
        stem=8,
        bottleneck=True,
        depths=[1, 2, 1, 1],
        widths=[4, 8, 8, 16],
        out_channels=[8, 12, 16, 20],
    ),
    zero_init_residual=False,
)
_AA = dict(type='hybrid_mm.AAResNet', heads=2, min_key_dim=3, canvas_size=(64, 96), **_RESNET)
_SASA = dict(type='hybrid_mm.SASAResNet', heads=2, **_RESNET)
_BOTTLENECKS = dict(
    depths=[1, 2, 1, 1],
    channels=[8, 12, 16, 20],
    heads=[2] * 4,
    stem=dict(kind='tiered', channels=16, pool=True),
)
_HALO = dict(_BOTTLENECKS, attention=[False, (1,), True, True], block_size=4, halo_size=1)
_BOT = dict(_BOTTLENECKS, attention=[False, False, True, True], ratios=[1] * 4, group_size=4)
_SAN = dict(
    stem_channels=32,
    stem_depth=1,
    stem_kernel_size=3,
    depths=[1, 2, 1, 1],
    channels=[32, 32, 64, 96],
    kernel_sizes=[5, 7, 3, 7],
)
_PVT = dict(
    depths=[1, 2, 1, 1],
    embed_dims=[8, 12, 16, 24],
    heads=[1, 2, 2, 3],
    mlp_ratios=[2, 2, 2, 2],
    reductions=[8, 4, 2, 1],
)
_NAT = dict(embed_dim=8, depths=[1, 2, 1, 1], heads=[1, 2, 2, 4], mlp_ratio=2.0, layer_scale=None)
_CONVNEXT = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 20])
_HOR = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 32], orders=[2, 3, 4, 5])
_HYBRID = dict(depths=[1, 2, 1, 1], channels=[8, 12, 16, 24], stem=dict(channels=(4, 8), bias=True))
_MVIT = dict(embed_dim=8, heads=1, depths=[1, 2, 2, 2])
_VIT = dict(embed_dim=16, heads=2, depths=[1, 2, 1, 1])
_CVT = dict(
    depths=[1, 1, 2],
    embed_dims=[8, 12, 16],
    heads=[1, 2, 4],
    mlp_ratios=[2, 2, 2],
    patch_sizes=[7, 3, 3],
    patch_strides=[4, 2, 2],
    patch_paddings=[2, 1, 1],
)
_LEVIT = dict(
    embed_dims=[16, 20, 24],
    key_dims=[4, 4, 6],
    heads=[2, 3, 2],
    depths=[2, 1, 1],
    mlp_ratios=[2] * 3,
    value_ratios=[2, 2, 3],
    shrink_heads=[None, 4, 3],
    shrink_key_dims=[None, 4, 5],
    shrink_value_ratios=[None, 4, 2],
    shrink_mlp_ratios=[None, 2, 3],
)
CASES = {
    'van-lka': dict(**_VAN, attention='lka'),
    'van-lska-k35': dict(**_VAN, attention='lska', kernel_size=35),
    'van-lka-trivial-k7': dict(**_VAN, attention='lka_trivial', kernel_size=7),
    'van-lska-trivial': dict(**_VAN, attention='lska_trivial'),
    'aa-resnet': _AA,
    'ea-aa-resnet': dict(
        type='hybrid_mm.EAAAResNet', heads=2, upsilon=0.25, canvas_size=(64, 96), **_RESNET
    ),
    'ea-aa-resnet-capped': dict(
        type='hybrid_mm.EAAAResNet', heads=2, alpha=0.7, max_tokens=20, upsilon=0.25, **_RESNET
    ),
    'lesa-resnet': dict(
        type='hybrid_mm.LESAResNet',
        groups=2,
        canvas_size=(64, 96),
        deformable=(False, True, True, True),
        **_RESNET,
    ),
    'sasa-resnet': {**_SASA, 'kernel_size': 5, 'heads': (0, 2, 2, 2)},
    'sasa-resnet-stem': dict(**_SASA, stem='attention', stem_heads=2, border='mask'),
    'quadratic-resnet': dict(
        type='hybrid_mm.QuadraticAttentionResNet',
        attention=(False, True, True, True),
        **_RESNET,
    ),
    'acmix-resnet': dict(type='hybrid_mm.ACmixResNet', heads=2, **_RESNET),
    'acmix-swin': dict(
        type='hybrid_mm.ACmixSwin',
        arch=dict(embed_dim=8, depths=[1, 2, 2, 1], heads=[2, 2, 4, 4]),
        window_size=4,
    ),
    'elsa-swin': dict(
        type='hybrid_mm.ELSASwin',
        arch=dict(embed_dim=12, depths=[1, 2, 1, 2], heads=[1, 2, 2, 4], group_width=4),
    ),
    'elsa-swin-factors': dict(
        type='hybrid_mm.ELSASwin',
        arch=dict(embed_dim=12, depths=[1, 1, 2, 1], heads=[3, 2, 2, 4], group_width=8),
        kernel_size=5,
        window_size=4,
        lam=1,
        always_shift=False,
    ),
    'nat': dict(type='hybrid_mm.NAT', arch=_NAT, kernel_size=3),
    'dinat': dict(type='hybrid_mm.DiNAT', arch=dict(_NAT, layer_scale=0.1), dilations='ade20k'),
    'dinat_s': dict(
        type='hybrid_mm.DiNATs',
        arch=dict(embed_dim=8, depths=[1, 2, 1, 1], heads=[1, 2, 2, 4]),
        kernel_size=5,
        dilations=[[2], [1, 3], [1], [1]],
    ),
    'pvt': dict(type='hybrid_mm.PVT', arch=_PVT, img_size=64),
    'pvt-acmix': dict(type='hybrid_mm.PVT', arch=_PVT, img_size=96, acmix=True),
    'san-pairwise': dict(type='hybrid_mm.SAN', attention='pairwise', arch=_SAN),
    'san-patchwise': dict(type='hybrid_mm.SAN', arch=_SAN),
    'san-acmix': dict(type='hybrid_mm.SAN', acmix=True, arch=_SAN),
    'slak': dict(type='hybrid_mm.SLaK', arch=_CONVNEXT, kernel_sizes=[31, 13, 7, 3]),
    'qna': dict(
        type='hybrid_mm.QnAViT',
        arch=dict(
            embed_dim=8,
            qna_depths=[1, 2, 1, 0],
            qna_heads=[2, 4, 4, 8],
            kernel_sizes=[3, 7, 3, 3],
            window_depths=[0, 0, 1, 2],
            window_sizes=[7, 7, 4, 3],
            window_heads=[1, 2, 2, 4],
        ),
    ),
    'replknet': dict(
        type='hybrid_mm.RepLKNet',
        norm_outputs='all',
        arch=dict(
            kernel_sizes=[31, 13, 7, 5],
            depths=[1, 2, 1, 1],
            channels=[8, 12, 16, 20],
            small_kernel=5,
            dw_ratio=1.5,
        ),
    ),
    'pelk': dict(type='hybrid_mm.PeLK', arch=_CONVNEXT, layer_scale=1.0),
    'pelk-valid': dict(
        type='hybrid_mm.PeLK',
        arch=_CONVNEXT,
        kernel_sizes=[101, 69, 67, 13],
        center_size=7,
        partial_ratio=1.0,
        pos_embed='valid',
        pos_embed_per_channel=True,
    ),
    'hornet': dict(
        type='hybrid_mm.HorNet',
        arch=dict(**_HOR, filter_sizes=[None] * 4),
        layer_scale=1.0,
    ),
    'hornet-gf': dict(
        type='hybrid_mm.HorNet',
        arch=dict(**_HOR, filter_sizes=[None, None, (14, 8), (7, 4)]),
        layer_scale=1.0,
    ),
    'maxvit': dict(
        type='hybrid_mm.MaxViT',
        arch=dict(
            **_HYBRID,
            conv=dict(act='gelu_tanh', padding='same'),
            norm=dict(eps=1e-3, momentum=0.01),
            ln_eps=1e-5,
            approximate='tanh',
        ),
        window_size=(4, 3),
        grid_size=3,
        head_width=4,
    ),
    'coatnet': dict(
        type='hybrid_mm.CoAtNet',
        arch=dict(
            **_HYBRID,
            kinds=['C', 'C', 'T', 'T'],
            conv=dict(act='gelu', padding='symmetric'),
            attention=dict(),
            norm=dict(eps=1e-5, momentum=0.1),
            ln_eps=1e-6,
        ),
        img_size=(64, 96),
        head_width=4,
        norm_outputs=True,
    ),
    'coatnet-rw': dict(
        type='hybrid_mm.CoAtNet',
        arch=dict(
            **_HYBRID,
            kinds=['C', 'C', 'T', 'T'],
            conv=dict(
                act='silu',
                padding='symmetric',
                expand_from='input',
                pre_act=True,
                bias=False,
                stride_in='pool',
                gate_early=True,
                gate_act='relu',
            ),
            attention=dict(expand_first=False, relative='log', layer_scale=1.0),
            norm=dict(eps=1e-5, momentum=0.1),
            ln_eps=1e-6,
        ),
        windowed=True,
        head_width=4,
    ),
    'mvitv2': dict(
        type='hybrid_mm.MViTv2',
        arch=_MVIT,
        img_size=96,
        window_size=16,
    ),
    'mvitv2-global': dict(
        type='hybrid_mm.MViTv2',
        arch=_MVIT,
        img_size=(64, 96),
        window_size=None,
        double_kv_stride=False,
        dim_mul_in_att=False,
    ),
    'vit': dict(
        type='hybrid_mm.ViT',
        arch=_VIT,
        pretrain_img_size=(64, 96),
        final_norm=True,
        layer_scale=0.5,
    ),
    'vit-bias': dict(
        type='hybrid_mm.ViT',
        arch=_VIT,
        pretrain_img_size=64,
        img_size=(64, 96),
        relative='bias',
    ),
    'vitdet': dict(
        type='hybrid_mm.ViT',
        arch=_VIT,
        pretrain_img_size=64,
        img_size=96,
        window_size=3,
        residual_blocks=(2,),
        relative=True,
        class_token=False,
    ),
    'cvt': dict(type='hybrid_mm.CvT', arch=_CVT),
    'cvt-methods': dict(
        type='hybrid_mm.CvT',
        arch=_CVT,
        with_cls_token=False,
        norm_outputs=True,
        projection=['avg', 'linear', 'dw_bn'],
        kernel_size=[3, 3, 5],
        kv_stride=[4, 1, 2],
    ),
    'levit': dict(type='hybrid_mm.LeViT', zero_init_residual=False, arch=_LEVIT),
    'levit-tiled': dict(
        type='hybrid_mm.LeViT', zero_init_residual=False, arch=_LEVIT, img_size=97, impl='tiled'
    ),
    'halonet': dict(
        type='hybrid_mm.HaloNet',
        zero_init_residual=False,
        arch=dict(_HALO, act='silu', gate=dict(kind='se', place='mid')),
    ),
    'halonet-odd-block': dict(
        type='hybrid_mm.HaloNet',
        mask_padding=True,
        arch=dict(
            _HALO,
            block_size=3,
            value_ratio=2,
            ratios=[2] * 4,
            bottle_in=True,
            linear_out=True,
            shortcut=False,
            strides=[2] * 4,
            stem=dict(kind='3x3', channels=8, pool=False),
        ),
    ),
    'botnet': dict(
        type='hybrid_mm.BoTNet',
        zero_init_residual=False,
        canvas_size=(64, 96),
        arch=dict(_BOT, gate=dict(kind='se', place='out', ratio=4)),
    ),
    'botnet-absolute': dict(
        type='hybrid_mm.BoTNet',
        zero_init_residual=False,
        canvas_size=(128, 64),
        position='absolute',
        shortcut_act=True,
        qkv_bias=True,
        arch=dict(_BOT, act='silu', gate=dict(kind='eca', place='mid')),
    ),
}
STRIDES = (4, 8, 16, 32, 64)


def strides(cfg):
    """Strides of all maps of a case."""
    if cfg['type'] == 'hybrid_mm.ViT':
        return (cfg.get('patch_size', 16),) * 4
    patch = cfg.get('patch_size', STRIDES[0])
    return tuple(stride * patch // STRIDES[0] for stride in STRIDES[: stages_of(cfg)])


def class_of(cfg):
    """Name of the registered class of a case."""
    return cfg['type'].split('.')[1]


def marked(name, cfg):
    """A parameter that belongs to its network."""
    return pytest.param(name, id=name, marks=pytest.mark.part_of(f'network:{class_of(cfg)}'))


def build(cfg, **kwargs):
    torch.manual_seed(0)
    return MODELS.build({**cfg, **kwargs})


def stages_of(cfg):
    """Number of stages; by default the first four are returned, or all if there are fewer."""
    return {'CvT': 3, 'LeViT': 5}.get(class_of(cfg), 4)


def rows(cfg, value, stride):
    """Rows of the map at a nominal stride."""
    if cfg['type'] == 'hybrid_mm.CvT':  # patches overlap, with the paper's padding
        patches = zip(
            *(cfg['arch'][f'patch_{k}'] for k in ('sizes', 'strides', 'paddings')), strict=True
        )
        for size, step, padding in list(patches)[: STRIDES.index(stride) + 1]:
            value = (value + 2 * padding - size) // step + 1
        return value
    # patches at the border that are not whole are cut away
    cut = class_of(cfg) in {'HorNet', 'PeLK', 'SLaK'}
    return value // stride if cut else -(-value // stride)


def test_every_registered_backbone_has_a_case():
    MODELS.import_from_location()
    classes = {n: c for n, c in MODELS.module_dict.items() if inspect.isclass(c)}
    names = {n for n, c in classes.items() if issubclass(c, BaseBackbone)}
    assert names == {class_of(case) for case in CASES.values()}


def rates_by_block(model, rate):
    """The published drop-path rate of every module that holds residual branches.

    Linear over the blocks, in their order, from 0 to ``rate``, but for some networks.
    """
    network, depths = type(model).__name__, model.depths[: len(model.stages)]
    names = [f'stages.{i}.blocks.{j}' for i, depth in enumerate(depths) for j in range(depth)]
    steps, apart = list(range(len(names))), {}
    if network == 'RepLKNet':  # a large kernel and its feed-forward network share one
        steps = [step // 2 for step in steps]
    elif network == 'CvT':  # linspace within every stage, and a rate for the last stage only
        steps = [0] * sum(depths[:-1]) + list(range(depths[-1]))
    elif network == 'LeViT':  # one rate, of the feed-forward networks after shrinking layers too
        names += [f'stages.{i}.downsample' for i in (3, 4) if i < len(model.stages)]
        steps = [1] * len(names)
    elif network == 'QnAViT':  # blocks that halve the map count; they open the next stage here
        names = []
        for i, depth in enumerate(depths):
            names += [f'stages.{i}.downsample'] * (i > 0)
            names += [f'stages.{i}.blocks.{j}' for j in range(depth)]
        steps = list(range(len(names)))
    elif network == 'SAN':  # the stage at stride 2 is part of the stem
        blocks = len(model.stem.stage.blocks)
        apart = {f'stem.stage.blocks.{j}': 0.0 for j in range(blocks)}
    return {n: rate * step / max(*steps, 1) for n, step in zip(names, steps, strict=True)} | apart


# what a block has beside its branches
NEVER_DROPPED = (
    r'\.(shortcut|skip)\.'
    r'|\.residual\.'  # detectron2's convolutional blocks of ViTDet
    r'|\.downsample\.attn\.'  # shrinking layers of LeViT, and of QnA: drop path on their MLP only
    r'|blocks\.\d+\.proj\.'  # MViTv2's shortcut to another width
)
IN_FRONT = r'\.downsample\.(norm1|gamma1)|stages\.\d\.blocks\.\d\.norm[12]\.'
"""Norms that such a part may see, of MViTv2 and QnA."""


def expected(cfg):
    """What is known about a case."""
    return Expected(
        stages=stages_of(cfg),
        strides=strides(cfg),
        rows=lambda pixels, stride: rows(cfg, pixels, stride),
        drop_path_rates=rates_by_block,
        kept=NEVER_DROPPED,
        before_kept=IN_FRONT if class_of(cfg) in ('MViTv2', 'QnAViT') else None,
        shortcuts=cfg.get('arch', {}).get('shortcut', True),
    )


def once_per_class(*long):
    """All cases; slow are those whose class has had one before, unless it had other operators.

    Args:
        long: More that are slow.
    """
    seen, found = set(), []
    for name, case in CASES.items():
        known = class_of(case) in seen and name not in ('san-patchwise', 'hornet-gf', 'vitdet')
        part = pytest.mark.part_of(f'network:{class_of(case)}')
        slow = [pytest.mark.slow] * (known or name in long)
        found.append(pytest.param(name, id=name, marks=[part, *slow]))
        seen.add(class_of(case))
    return found


ONCE = {
    'initial_values': (),
    'moves_to_a_device': (),
    'copies': (),
    'every_parameter_has_a_gradient': (),
    'weights_of_stages_that_are_not_there': (),
    'image_channels': (),
    **dict.fromkeys(('any_size', 'frozen_stages', 'announced_shapes', 'checkpointing'), ()),
    'autocast': (),
}
"""Checks that run once per class, and the cases in which they are slow."""
# one of every way to compute that differs: tracing takes 1 to 6 seconds of each network
SLOW = {
    'compile_eval': ('van-lska-k35', 'nat', 'levit', 'hornet-gf'),
    'compile_training': ('van-lska-k35', 'nat', 'levit', 'hornet-gf'),
    'export': (),
    'traced': ('van-lska-k35', 'nat', 'acmix-swin'),
}
"""Checks that are slow but for a few cases."""


def items():
    """Every check of every case; the slowest are the last checks."""
    for check in BACKBONE_CHECKS:
        if check in ONCE:
            cases = once_per_class(*ONCE[check])
        else:
            cases = [marked(name, cfg) for name, cfg in CASES.items()]
        for case in cases:
            (name,) = case.values
            slow = [pytest.mark.slow] * (check in SLOW and name not in SLOW[check])
            yield pytest.param(check, name, id=f'{check}-{name}', marks=[*case.marks, *slow])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(('check', 'name'), [*items()])
def test_contract(check, name):
    cfg = copy.deepcopy(CASES[name])
    report = check_backbone(cfg.pop('type'), only=check, expected=expected(CASES[name]), **cfg)
    skipped = report.skipped()
    if 'torchvision::deform_conv2d' in str(skipped) and not deforms_without_data():
        pytest.skip('deformable convolutions of this torchvision have no shapes without data')
    assert not skipped


def deforms_without_data():
    return torch._C._dispatch_has_kernel_for_dispatch_key('torchvision::deform_conv2d', 'Meta')


def test_unknown_arch_names_the_nearest():
    with pytest.raises(ValueError, match=r"VAN has no arch 'smal': did you mean 'small'"):
        MODELS.build(dict(type='hybrid_mm.VAN', arch='smal'))
    with pytest.raises(ValueError, match=r"missing \['mlp_ratios'\], unknown \['width'\]"):
        MODELS.build(dict(type='VAN', arch=dict(embed_dims=[8], depths=[1], width=3)))
    with pytest.raises(ValueError, match='one entry per stage'):
        MODELS.build(dict(type='VAN', arch=dict(embed_dims=[8, 9], depths=[1], mlp_ratios=[1])))


# layers of the decay, counted by hand: depths are 1, 2, 1 and 1 if nothing else is said
LAYERS = {
    'van-lka': {
        'stages.0.embed.conv.weight': 0, 'stages.0.blocks.0.mlp.fc1.weight': 1,
        'stages.0.norm.weight': 1, 'stages.1.embed.norm.weight': 2,
        'stages.1.blocks.0.norm1.bias': 2, 'stages.1.blocks.1.layer_scale_1': 3,
        'stages.1.norm.bias': 3, 'stages.2.embed.conv.bias': 4, 'stages.3.embed.conv.bias': 5,
        'stages.3.norm.bias': 5,
    },
    'aa-resnet': {
        'stem.conv.weight': 0, 'stem.norm.bias': 0, 'stages.0.blocks.0.conv3.weight': 1,
        'stages.1.blocks.0.conv1.weight': 2, 'stages.1.blocks.1.conv2.relative.rel_h': 3,
        'stages.3.blocks.0.norm3.bias': 5,
    },
    'nat': {
        'stages.0.embed.conv2.bias': 0, 'stages.0.norm.bias': 1,
        'stages.1.downsample.conv.weight': 2, 'stages.1.blocks.1.attn.relative_bias': 3,
        'stages.3.downsample.norm.weight': 5,
    },
    'replknet': {  # each block and its feed-forward network: 2, 4, 2, 2
        'stem.3.conv.weight': 0, 'stages.0.blocks.1.fc2.conv.weight': 1, 'stages.0.norm.weight': 5,
        'stages.1.downsample.0.conv.weight': 1, 'stages.1.blocks.3.norm.bias': 2,
        'stages.3.downsample.1.norm.bias': 3, 'stages.3.norm.bias': 5,
    },
    'san-patchwise': {
        'stem.stage.blocks.0.conv.weight': 0, 'stages.0.downsample.weight': 1,
        'stages.2.downsample.weight': 4, 'stages.3.norm.weight': 5,
    },
    'levit': {  # 0, 0, 2, 1 blocks, the fifth stage is not built
        'stem.conv.conv.weight': 0, 'stages.1.downsample.conv.conv.weight': 1,
        'stages.2.downsample.conv.norm.bias': 1, 'stages.2.blocks.1.mlp.fc1.linear.weight': 2,
        'stages.3.downsample.attn.q.linear.weight': 3, 'stages.3.blocks.0.attn.distance_bias': 3,
    },
    'qna': {  # 1, 2, 2, 2
        'stages.0.embed.conv.weight': 0, 'stages.1.downsample.skip.weight': 2,
        'stages.3.downsample.mlp.fc1.bias': 6, 'stages.3.blocks.1.attn.qkv.weight': 7,
    },
    'vit': {
        'stem.position': 0, 'stem.class_token': 0, 'stages.1.blocks.0.norm1.bias': 2,
        'stages.3.blocks.0.mlp.fc2.bias': 5, 'stages.3.norm.bias': 5,
    },
}  # fmt: skip


@pytest.mark.parametrize('name', LAYERS)
def test_layers_of_the_decay_counted_by_hand(name):
    model = build(CASES[name])
    names = dict(model.named_parameters())
    for key, layer in LAYERS[name].items():
        assert key in names
        assert model.get_layer_depth(f'backbone.{key}', 'backbone.')[0] == layer, key
