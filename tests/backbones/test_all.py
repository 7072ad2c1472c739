"""The contract that every backbone keeps. A new backbone adds one line to ``CASES``."""

import copy
import inspect

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.backbones import Pyramid
from hybrid_mm.backbones.convnext_frame import ConvNeXtFrame
from hybrid_mm.registry import MODELS

_VAN = dict(
    type='hybrid_mm.VAN',
    arch=dict(embed_dims=[8, 12, 16, 20], depths=[1, 2, 1, 1], mlp_ratios=[4, 4, 2, 2]),
)
_RESNET = dict(
    arch=dict(stem=8, bottleneck=True, depths=[1, 2, 1, 1], widths=[4, 8, 8, 16],
              out_channels=[8, 12, 16, 20]),
    zero_init_residual=False)  # fmt: skip
_AA = dict(type='hybrid_mm.AAResNet', heads=2, min_key_dim=3, canvas_size=(64, 96), **_RESNET)
_SASA = dict(type='hybrid_mm.SASAResNet', heads=2, **_RESNET)
_BOTTLENECKS = dict(depths=[1, 2, 1, 1], channels=[8, 12, 16, 20], heads=[2] * 4,
                    stem=dict(kind='tiered', channels=16, pool=True))  # fmt: skip
_HALO = dict(_BOTTLENECKS, attention=[False, (1,), True, True], block_size=4, halo_size=1)
_BOT = dict(_BOTTLENECKS, attention=[False, False, True, True], ratios=[1] * 4, group_size=4)
_SAN = dict(stem_channels=32, stem_depth=1, stem_kernel_size=3, depths=[1, 2, 1, 1],
            channels=[32, 32, 64, 96], kernel_sizes=[5, 7, 3, 7])  # fmt: skip
_PVT = dict(depths=[1, 2, 1, 1], embed_dims=[8, 12, 16, 24], heads=[1, 2, 2, 3],
            mlp_ratios=[2, 2, 2, 2], reductions=[8, 4, 2, 1])  # fmt: skip
_NAT = dict(embed_dim=8, depths=[1, 2, 1, 1], heads=[1, 2, 2, 4], mlp_ratio=2.0, layer_scale=None)
_CONVNEXT = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 20])
_HOR = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 32], orders=[2, 3, 4, 5])
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
    'sasa-resnet': dict(**_SASA, kernel_size=5, attention=(False, True, True, True)),
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
STRIDES = (4, 8, 16, 32)


@pytest.fixture(params=CASES, ids=list(CASES))
def cfg(request):
    return copy.deepcopy(CASES[request.param])


def build(cfg, **kwargs):
    torch.manual_seed(0)
    return MODELS.build({**cfg, **kwargs})


def rows(cfg, value, stride):
    # patches at the border that are not whole are cut away
    cut = cfg['type'].split('.')[1] in {'HorNet', 'PeLK', 'SLaK'}
    return value // stride if cut else -(-value // stride)


def test_every_registered_backbone_has_a_case():
    MODELS.import_from_location()
    classes = {n: c for n, c in MODELS.module_dict.items() if inspect.isclass(c)}
    names = {n for n, c in classes.items() if issubclass(c, Pyramid)}
    assert names == {case['type'].split('.')[1] for case in CASES.values()}


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_foreign_registries_find_it_without_imports(cfg, scope):
    registry = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
    assert isinstance(registry.build(cfg), Pyramid)
    assert isinstance(ROOT.build(cfg), Pyramid)


@pytest.mark.parametrize('size', SIZES, ids=lambda s: f'{s[0]}x{s[1]}')
@pytest.mark.parametrize('training', [True, False])
def test_any_size(cfg, size, training):
    model = build(cfg, drop_path_rate=0.2).train(training)
    maps = model(torch.rand(2, 3, *size))
    for stride, channels, out in zip(STRIDES, model.out_channels, maps, strict=True):
        assert out.shape == (2, channels, *(rows(cfg, value, stride) for value in size))
        assert out.isfinite().all()


def test_float64_is_deterministic_in_eval(cfg):
    model = build(cfg, drop_path_rate=0.5).double().eval()
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    for a, b in zip(model(x), model(x), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b)


@pytest.mark.parametrize('batch', [1, 2])
def test_gradient_is_the_derivative(cfg, batch):
    """Batch 1 in eval mode is where strides can lead torch's CPU batch norm astray."""
    model = build(cfg).double().eval()
    x = torch.rand(batch, 3, 40, 56, dtype=torch.float64, requires_grad=True)
    dys = [torch.randn_like(m) for m in model(x)]
    (grad,) = torch.autograd.grad(model(x), x, dys)

    @torch.no_grad()
    def value(z):
        return sum((m * dy).sum() for m, dy in zip(model(z), dys, strict=True))

    u = torch.randn_like(x)
    # a larger step meets kinks of ReLU
    difference = (value(x + 1e-7 * u) - value(x - 1e-7 * u)) / 2e-7
    assert difference.item() == pytest.approx((grad * u).sum().item(), rel=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(cfg, dtype):
    # statistics of a few pixels magnify rounding: a plain ResNet would miss the bound by far
    model = build(cfg, norm_eval=True).train()
    x = torch.rand(2, 3, 64, 64)
    reference = model(x)
    with torch.autocast('cpu', dtype=dtype):
        maps = model(x)
    sum(m.float().pow(2).mean() for m in maps).backward()
    for low, full in zip(maps, reference, strict=True):
        assert (low.float() - full).norm() <= 0.05 * full.norm()
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


@pytest.mark.parametrize('out_indices', [(0,), (3,), (1, 3), 2, (-1,)])
def test_out_indices(cfg, out_indices):
    model, full = build(cfg, out_indices=out_indices).eval(), build(cfg).eval()
    x = torch.rand(1, 3, 64, 64)
    wanted = (out_indices,) if isinstance(out_indices, int) else out_indices
    maps, expected = model(x), full(x)
    assert len(maps) == len(wanted) == len(model.out_channels)
    for i, channels, out in zip(wanted, model.out_channels, maps, strict=True):
        assert out.shape[1] == channels
        assert torch.equal(out, expected[i])


@pytest.mark.parametrize('bad', [(4,), (0, 0), (3, -1), (-5,)])
def test_bad_out_indices(cfg, bad):
    with pytest.raises(ValueError, match=r'out_indices must be distinct stages in 0..3'):
        build(cfg, out_indices=bad)


@pytest.mark.parametrize('frozen', [-1, 0, 1, 3])
def test_frozen_stages(cfg, frozen):
    model = build(cfg, frozen_stages=frozen)
    assert model.train() is model
    assert model.eval() is model
    model.train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    sum(m.pow(2).mean() for m in model(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    after = model.state_dict()
    changed = {k for k in after if not torch.equal(before[k], after[k])}
    assert changed
    stages = {int(k.split('.')[1]) for k in changed if k.startswith('stages.')}
    assert stages == set(range(max(frozen, 0), 4))
    if frozen >= 0:
        stem = 'stages.0.embed' if isinstance(model.stem, nn.Identity) else 'stem'
        assert not any(k.startswith(stem) for k in changed)
    with pytest.raises(ValueError, match=r'frozen_stages must lie in -1..4'):
        build(cfg, frozen_stages=5)


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
    if isinstance(model, ConvNeXtFrame):
        pytest.skip('counts layers as ConvNeXt does, see test_large_kernels.py')
    ids = [model.get_layer_depth(f'backbone.{n}', 'backbone.')[0] for n, _ in
           model.named_parameters()]  # fmt: skip
    total = model.get_layer_depth('neck.conv.weight', 'backbone.')
    assert total == (sum(model.depths) + 1, sum(model.depths) + 2)
    assert ids == sorted(ids)
    assert set(ids) == set(range(sum(model.depths) + 1))


def test_pretrained_round_trip(cfg, tmp_path):
    source = build(cfg)
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}
                | {'decode_head.weight': torch.zeros(1)}}, tmp_path / 'full.pth')  # fmt: skip
    torch.save(source.state_dict(), tmp_path / 'plain.pth')
    for name in ('full.pth', 'plain.pth'):
        target = MODELS.build(
            {**cfg, 'init_cfg': dict(type='Pretrained', checkpoint=str(tmp_path / name))}
        )
        target.init_weights()
        for key, value in source.state_dict().items():
            assert torch.equal(target.state_dict()[key], value), key


def test_pretrained_of_another_model_fails(cfg, tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(2)}, tmp_path / 'resnet.pth')
    model = build(cfg, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'resnet.pth')))
    with pytest.raises(ValueError, match=r'resnet.pth does not fit .*missing.*layer1.0.conv1'):
        model.init_weights()
    model = build(cfg, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth')))
    with pytest.raises(FileNotFoundError, match=r'pre-trained weights not found.*init_cfg'):
        model.init_weights()


@pytest.mark.timeout(300)
def test_compile_without_graph_breaks(cfg):
    model = build(cfg).eval()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        explained = torch._dynamo.explain(model)(x)
        assert explained.graph_break_count == 0, explained.break_reasons
        compiled = torch.compile(model, fullgraph=True, backend='eager')
        for a, b in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(a, b)
    torch._dynamo.reset()


@pytest.mark.timeout(300)
def test_training_compiles_without_graph_breaks(cfg):
    model = build(cfg).train()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    x = torch.rand(2, 3, 64, 96)
    maps = [network(x) for network in (compiled, model)]
    for a, b in zip(*maps, strict=True):
        # another choice among exact algorithms, magnified by batch norms of few pixels
        assert (a - b).norm() <= 1e-3 * b.norm()
    sum(m.pow(2).mean() for m in maps[0]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch._dynamo.reset()


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
        monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)
        with Operators() as operators:
            found = model(x)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    strange = ('hybrid_mm::', 'torchvision::', 'aten::_fft', 'aten::view_as_complex')
    assert not [name for name in operators.names if name.startswith(strange)]
