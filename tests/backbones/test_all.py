"""The contract that every backbone keeps. A new backbone adds one line to ``CASES``."""

import copy
import inspect
import itertools
import re

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.backbones import BaseBackbone, RepLKNet
from hybrid_mm.backbones.frames.convnext import ConvNeXtFrame
from hybrid_mm.checkpoints import check_weights
from hybrid_mm.layers import DropPath
from hybrid_mm.registry import MODELS

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
SIZES = [(32, 32), (97, 131), (200, 333), (33, 47)]
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


@pytest.fixture(params=[marked(name, cfg) for name, cfg in CASES.items()])
def cfg(request):
    return copy.deepcopy(CASES[request.param])


def build(cfg, **kwargs):
    torch.manual_seed(0)
    return MODELS.build({**cfg, **kwargs})


@torch.no_grad()
def drawn(model):
    """All parameters and buffers random: nothing is zero or one."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 2)
        else:
            tensor.random_(2, 99)
    return model


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


def test_foreign_registries_find_it_without_imports(cfg):
    for scope in ('mmdet', 'mmseg', 'mmpretrain'):
        registry = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
        assert isinstance(registry.build(cfg), BaseBackbone)
    assert isinstance(ROOT.build(cfg), BaseBackbone)


def test_any_size(cfg):
    model = build(cfg, drop_path_rate=0.2)
    assert model.out_indices == tuple(range(min(4, stages_of(cfg))))
    assert model.map_strides == strides(cfg)
    for size, training in itertools.product(SIZES, (True, False)):
        maps = model.train(training)(torch.rand(2, 3, *size))
        expected = strides(cfg)[: len(maps)]
        for stride, channels, out in zip(expected, model.out_channels, maps, strict=True):
            assert out.shape == (2, channels, *(rows(cfg, value, stride) for value in size)), size
            assert out.isfinite().all(), size
            assert out.is_contiguous(), size  # mmcv's RoIAlign reads memory as NCHW


def test_float64_is_deterministic_in_eval(cfg):
    model = build(cfg, drop_path_rate=0.5).double().eval()
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    for a, b in zip(model(x), model(x), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b)


def test_gradient_is_the_derivative(cfg):
    """Batch 1 in eval mode is where strides can lead torch's CPU batch norm astray."""
    model = build(cfg).double().eval()
    for batch in (1, 2):
        x = torch.rand(batch, 3, 40, 56, dtype=torch.float64, requires_grad=True)
        maps = model(x)
        dys = [torch.randn_like(m) for m in maps]
        (grad,) = torch.autograd.grad(maps, x, dys)

        @torch.no_grad()
        def value(z, dys=dys):
            return sum((m * dy).sum() for m, dy in zip(model(z), dys, strict=True))

        u = torch.randn_like(x)
        # a larger step meets kinks of ReLU
        difference = (value(x + 1e-7 * u) - value(x - 1e-7 * u)) / 2e-7
        assert difference.item() == pytest.approx((grad * u).sum().item(), rel=1e-5), batch


def test_autocast(cfg):
    # statistics of a few pixels magnify rounding: a plain ResNet would miss the bound by far
    model = build(cfg, norm_eval=True).train()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        reference = model(x)
    for dtype in (torch.bfloat16, torch.float16):
        model.zero_grad()
        with torch.autocast('cpu', dtype=dtype):
            maps = model(x)
        sum(m.float().pow(2).mean() for m in maps).backward()
        for low, full in zip(maps, reference, strict=True):
            assert (low.float() - full).norm() <= 0.05 * full.norm(), dtype
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_checkpointing_gives_the_same_gradients_and_statistics(cfg):
    plain, saving = build(cfg, drop_path_rate=0.3), build(cfg, drop_path_rate=0.3, with_cp=True)
    x = torch.rand(2, 3, 64, 64)
    for model in (plain, saving):
        model.double().train()
        torch.manual_seed(1)
        sum(m.pow(2).mean() for m in model(x.double())).backward()
    assert any(p.grad.abs().max() > 0 for p in plain.parameters())
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name, rtol=1e-9, atol=1e-12)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name


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
NEVER_DROPPED = re.compile(
    r'\.(shortcut|skip)\.'
    r'|\.residual\.'  # detectron2's convolutional blocks of ViTDet
    r'|\.downsample\.attn\.'  # shrinking layers of LeViT, and of QnA: drop path on their MLP only
    r'|blocks\.\d+\.proj\.'  # MViTv2's shortcut to another width
)
IN_FRONT = re.compile(r'\.downsample\.(norm1|gamma1)|stages\.\d\.blocks\.\d\.norm[12]\.')
"""Norms that such a part may see, of MViTv2 and QnA."""


def test_drop_path(cfg, monkeypatch):
    """Every residual branch is dropped, and only these, at the published rate."""
    model = build(cfg, drop_path_rate=0.3).train()
    used = {}

    def drop(self, x):
        used.setdefault(id(self), x.shape)
        return x * 0

    monkeypatch.setattr(DropPath, 'forward', drop)
    maps = model(torch.rand(2, 3, 64, 64))
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()

    expected = rates_by_block(model, 0.3)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, DropPath):
            assert id(module) in used, f'{name} is not used'
            owners = [block for block in expected if name.startswith(f'{block}.')]
            assert len(owners) == 1, name
            found.setdefault(owners[0], set()).add(round(module.rate, 9))
    assert found == {name: {round(rate, 9)} for name, rate in expected.items()}

    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    for block in expected:
        own = [n for n, _ in model.named_parameters() if n.startswith(f'{block}.')]
        kept = [n for n in own if NEVER_DROPPED.search(n)]
        parts = {}
        for name in kept:
            parts.setdefault(NEVER_DROPPED.search(name)[0], set()).add(name)
        assert all(part & moved for part in parts.values()), f'{block} is dropped with its shortcut'
        dropped = set(own) - set(kept)
        if kept and type(model).__name__ in ('MViTv2', 'QnAViT'):
            dropped = {n for n in dropped if not IN_FRONT.search(n)}
        assert not dropped & moved, f'{block} has a branch without drop path'
    if cfg.get('arch', {}).get('shortcut', True):  # else nothing is left
        first = 'stages.0.embed' if isinstance(model.stem, nn.Identity) else 'stem'
        assert any(name.startswith(first) for name in moved)


def test_out_indices(cfg):
    last = stages_of(cfg) - 1
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = build(cfg, out_indices=tuple(range(last + 1))).eval()(x)
        for wanted in ((0,), (last,), (1, last), 2, (-1,)):
            model = build(cfg, out_indices=wanted).eval()
            maps = model(x)
            wanted = (wanted,) if isinstance(wanted, int) else wanted
            assert len(maps) == len(wanted) == len(model.out_channels)
            for i, channels, out in zip(wanted, model.out_channels, maps, strict=True):
                assert out.shape[1] == channels
                assert torch.equal(out, expected[i]), wanted


def test_bad_out_indices(cfg):
    n = stages_of(cfg)
    for bad in ('0', 1.5, True, None, ((0,),), (0, '1'), (False,), {0: 1}):
        with pytest.raises(ValueError, match=r'out_indices must be one integer or a sequence'):
            build(cfg, out_indices=bad)
    for bad in ((n,), (0, 0), (n - 1, -1), (-n - 1,)):
        with pytest.raises(ValueError, match=rf'out_indices must be distinct stages in 0..{n - 1}'):
            build(cfg, out_indices=bad)


@pytest.mark.parametrize('frozen', [-1, 0, 1, 'all but the last'])
def test_frozen_stages(cfg, frozen):
    number = stages_of(cfg)
    frozen = number - 1 if isinstance(frozen, str) else frozen
    model = build(cfg, frozen_stages=frozen, out_indices=tuple(range(number)))
    assert model.eval() is model
    assert model.train() is model
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    sum(m.pow(2).mean() for m in model(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    after = model.state_dict()
    changed = {k for k in after if not torch.equal(before[k], after[k])}
    assert changed
    stages = {int(k.split('.')[1]) for k in changed if k.startswith('stages.')}
    assert stages == set(range(max(frozen, 0), number))
    if frozen >= 0:
        stem = 'stages.0.embed' if isinstance(model.stem, nn.Identity) else 'stem'
        assert not any(k.startswith(stem) for k in changed)


def test_bad_frozen_stages(cfg):
    number = stages_of(cfg)
    for bad in (number + 1, -2):
        with pytest.raises(ValueError, match=rf'frozen_stages must lie in -1..{number}'):
            build(cfg, frozen_stages=bad)


def test_norm_eval(cfg):
    model = build(cfg, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert all(not m.training for m in norms)
    assert model.training


def test_unknown_arch_names_the_nearest():
    with pytest.raises(ValueError, match=r"VAN has no arch 'smal': did you mean 'small'"):
        MODELS.build(dict(type='hybrid_mm.VAN', arch='smal'))
    with pytest.raises(ValueError, match=r"missing \['mlp_ratios'\], unknown \['width'\]"):
        MODELS.build(dict(type='VAN', arch=dict(embed_dims=[8], depths=[1], width=3)))
    with pytest.raises(ValueError, match='one entry per stage'):
        MODELS.build(dict(type='VAN', arch=dict(embed_dims=[8, 9], depths=[1], mlp_ratios=[1])))


def test_layer_depths_grow_from_input_to_output(cfg):
    model = build(cfg)
    if isinstance(model, ConvNeXtFrame | RepLKNet):
        pytest.skip('counts layers as its authors do, see tests/engine/test_layer_decay.py')
    ids = [
        model.get_layer_depth(f'backbone.{n}', 'backbone.')[0] for n, _ in model.named_parameters()
    ]
    total = model.get_layer_depth('neck.conv.weight', 'backbone.')
    assert total == (sum(model.depths) + 1, sum(model.depths) + 2)
    assert ids == sorted(ids)
    assert set(ids) == set(range(sum(model.depths[: len(model.stages)]) + 1))


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


def test_pretrained_round_trip(cfg, tmp_path):
    source = drawn(build(cfg))
    torch.save(
        {
            'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}
            | {'decode_head.weight': torch.zeros(1)}
        },
        tmp_path / 'full.pth',
    )
    torch.save(source.state_dict(), tmp_path / 'plain.pth')
    for name in ('full.pth', 'plain.pth'):
        target = MODELS.build(
            {**cfg, 'init_cfg': dict(type='Pretrained', checkpoint=str(tmp_path / name))}
        )
        target.init_weights()
        found = target.state_dict()
        for key, value in source.state_dict().items():
            assert torch.equal(found[key], value), key
    state = source.state_dict()
    key = next(
        k
        for k, v in state.items()
        if v.ndim > 1 and v.shape[0] != v.shape[1] and k.endswith('.weight')
    )
    shape = state[key].transpose(0, 1).shape  # as many elements
    with pytest.raises(ValueError, match=rf'1 of another shape: {re.escape(key)} '):
        target.load_strictly({**state, key: torch.rand(shape)}, 'a test')


def test_pretrained_of_another_model_fails(cfg, tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(2)}, tmp_path / 'resnet.pth')
    model = build(cfg, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'resnet.pth')))
    with pytest.raises(ValueError, match=r'resnet.pth does not fit .*layer1.0.conv1'):
        model.init_weights()
    model = build(cfg, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth')))
    with pytest.raises(FileNotFoundError, match=r'pre-trained weights not found.*init_cfg'):
        model.init_weights()


class FakesFit(TorchDispatchMode):
    """Compares what our operators return with what they announce to compilers."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        if func.namespace == 'hybrid_mm':
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                fakes = tree_map_only(torch.Tensor, mode.from_tensor, (args, kwargs or {}))
                announced = func(*fakes[0], **fakes[1])
            pairs = zip(tree_leaves(found), tree_leaves(announced), strict=True)
            for i, (a, b) in enumerate(pairs):
                assert (a.shape, a.dtype) == (b.shape, b.dtype), f'{func}, output {i}'
                strides = [
                    [n for n, size in zip(x.stride(), x.shape, strict=True) if size > 1]
                    for x in (a, b)
                ]
                assert strides[0] == strides[1], f'{func}, output {i} of {tuple(a.shape)}'
        return found


def test_operators_return_what_they_announce(cfg):
    """Shapes, types and strides; a compiled graph relies on them."""
    model = build(cfg).train()
    with FakesFit():
        maps = model(torch.rand(2, 3, 97, 131))
        sum(m.pow(2).mean() for m in maps).backward()


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name)
        return func(*args, **kwargs or {})


def test_formulation_of_exporters(cfg, monkeypatch):
    """It is exact, and has none of what exporters do not know."""
    model = build(cfg).eval()
    x = torch.rand(1, 3, 97, 131)
    with torch.no_grad():
        expected = model(x)
        monkeypatch.setattr(torch.compiler, '_is_exporting_flag', True)
        with Operators() as operators:
            found = model(x)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    strange = ('hybrid_mm::', 'torchvision::', 'aten::_fft', 'aten::view_as_complex')
    assert not [name for name in operators.names if name.startswith(strange)]


# the slowest at the end


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_compile_without_graph_breaks(cfg):
    check_compilation_in_eval(cfg)


# one of every way to compute that differs in eval; in training all networks compile
@pytest.mark.parametrize(
    'name', [marked(name, CASES[name]) for name in ('van-lska-k35', 'nat', 'levit', 'hornet-gf')]
)
def test_some_compile_in_eval(name):
    check_compilation_in_eval(CASES[name])


def check_compilation_in_eval(cfg):
    model = build(cfg).eval()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        # a graph break is an error with fullgraph=True
        compiled = torch.compile(model, fullgraph=True, backend='eager')
        for a, b in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(a, b)
    torch._dynamo.reset()


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


def subsets(cfg):
    """Some choices of stages, the default among them."""
    last = stages_of(cfg) - 1
    return [None, (0,), (last,), (0, 2), (last - 1,)]


@pytest.mark.parametrize('name', once_per_class())
def test_every_parameter_has_a_gradient(name):
    """Whatever is returned: distributed training waits for all of them."""
    cfg = CASES[name]
    for wanted in subsets(cfg):
        model = build(cfg, **({} if wanted is None else dict(out_indices=wanted))).train()
        sum(m.sin().sum() for m in model(torch.rand(2, 3, 64, 64))).backward()
        silent = [name for name, p in model.named_parameters() if p.grad is None]
        assert not silent, wanted


@pytest.mark.parametrize('name', once_per_class())
def test_weights_of_stages_that_are_not_there(name):
    """They are left out of a file, in each way to load one; nothing else may be missing."""
    cfg = CASES[name]
    last = stages_of(cfg) - 1
    whole = drawn(build(cfg, out_indices=tuple(range(last + 1))))
    for wanted in ((0,), (0, last - 1)):
        model = build(cfg, out_indices=wanted)
        assert len(model.stages) == wanted[-1] + 1
        assert list(model.depths) == list(whole.depths)
        own, full = model.state_dict(), whole.state_dict()
        assert all(k in own or model.leaves_out(k) for k in full)  # norms of other maps as well
        model.load_state_dict(full)
        detector = nn.ModuleDict(dict(backbone=build(cfg, out_indices=wanted)))
        prefixed = {f'backbone.{key}': value for key, value in full.items()}
        for state in (prefixed, check_weights(detector, dict(state_dict=prefixed), 'a test')):
            detector.load_state_dict(state)
        strict = build(cfg, out_indices=wanted)
        strict.load_strictly(full, 'a test')
        for loaded in (model, detector['backbone'], strict):
            for key, value in loaded.state_dict().items():
                assert torch.equal(value, full[key]), key
        strict.load_strictly(own, 'a test')  # what such a network saves
        key = f'stages.{last + 1}.blocks.0.weight'
        with pytest.raises(RuntimeError, match=re.escape(key)):
            model.load_state_dict({**full, key: torch.rand(1)})
        with pytest.raises(ValueError, match='missing'):
            whole.load_strictly(own, 'a test')


@pytest.mark.timeout(300)
# tracing takes 4 to 6 seconds of each of these, 1 to 3 of the others
@pytest.mark.parametrize(
    'name', once_per_class('maxvit', 'quadratic-resnet', 'qna', 'san-pairwise')
)
def test_training_compiles_without_graph_breaks(name):
    model = build(CASES[name]).train()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    x = torch.rand(2, 3, 64, 96)
    maps = [network(x) for network in (compiled, model)]
    for a, b in zip(*maps, strict=True):
        # another choice among exact algorithms, magnified by batch norms of few pixels
        assert (a - b).norm() <= 1e-3 * b.norm()
    sum(m.pow(2).mean() for m in maps[0]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch._dynamo.reset()
