"""Every plugin in the ResNets of MMDetection and MMSegmentation, as they are."""

import copy

import pytest
import torch
from mmdet.models import ResNet as DetResNet
from mmdet.models import ResNeXt as DetResNeXt
from mmseg.models import ResNet as SegResNet
from mmseg.models import ResNetV1c as SegResNetV1c
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import hybrid_mm.plugins
from hybrid_mm.analysis.complexity import count
from hybrid_mm.backbones import SASAResNet
from hybrid_mm.plugins import AttentionResNet
from hybrid_mm.plugins.base import Plugin, ResNetModule
from hybrid_mm.registry import MODELS

SMALL = dict(depth=50, base_channels=8, stem_channels=8)
NORM_CFG = dict(type='BN', eps=1e-3, requires_grad=True)
# name: (arguments for few channels, arguments with which the module starts as the identity)
PLUGINS = {
    'SE': ({}, dict(init_identity=True)),
    'CBAM': (dict(ratio=4), dict(init_identity=True)),
    'BAM': (dict(ratio=4), dict(init_identity=True)),
    'ECA': ({}, dict(init_identity=True)),
    'GatherExcite': ({}, dict(init_identity=True)),
    'TripletAttention': ({}, dict(init_identity=True)),
    'CoordinateAttention': ({}, dict(init_identity=True)),
    'ContextBlock': (dict(ratio=1 / 4), {}),
    'SimplifiedNonLocal': ({}, {}),
    'NonLocal2d': (dict(sub_sample=True), dict(norm_cfg=dict(type='BN'))),
}
OPERATORS = {
    'SelectiveKernel': {},
    'LambdaLayer': dict(window=5, key_channels=4),
    'ACmix': dict(kernel_att=5, heads=2),
}
RESNETS = {'mmdet': DetResNet, 'mmseg': SegResNet, 'mmdet-x': DetResNeXt}


def plugins(name, position='after_conv3', **cfg):
    return [dict(cfg=dict(type=f'hybrid_mm.{name}', **PLUGINS[name][0], **cfg), position=position)]


def with_plugin(base, name, stages=None, resnet=None, **cfg):
    """A small ResNet with a plugin, or with an operator in the place of its 3x3 convolutions."""
    torch.manual_seed(0)
    settings = {**SMALL, **(resnet or {})}
    if base is DetResNeXt:
        settings.update(groups=2, base_width=8, base_channels=16)
    if name in PLUGINS:
        entries = [{**entry, 'stages': stages} for entry in plugins(name, **cfg)]
        return base(plugins=entries, **settings)
    if name in ('LambdaLayer', 'ACmix') and base is DetResNeXt:
        settings.update(groups=1)
    entry = dict(cfg=dict(type=f'hybrid_mm.{name}', **OPERATORS[name], **cfg), stages=stages)
    return AttentionResNet(base, conv2=entry, **settings)


def modules(net, name):
    return [m for m in net.modules() if type(m).__name__ == name]


def test_every_plugin_is_tested():
    classes = [c for c in vars(hybrid_mm.plugins).values() if isinstance(c, type)]
    ours = {c.__name__ for c in classes if issubclass(c, ResNetModule) or hasattr(c, '_abbr_')}
    assert ours == {*PLUGINS, *OPERATORS, 'SASAStem'}


# -- in the networks -------------------------------------------------------------------------------


@pytest.mark.parametrize('base', RESNETS)
@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_one_image_of_odd_size(base, name):
    """Training on one image reaches every parameter; evaluation and autocast work."""
    net = with_plugin(RESNETS[base], name, resnet=dict(norm_eval=False))
    net.init_weights()
    with torch.no_grad():
        for block in modules(net, 'Bottleneck'):  # zero in a ResNet that starts from scratch
            block.norm3.weight.fill_(0.5)
    # gates that start as the identity pass no gradient to what is before their zeros
    for m in net.modules():
        for p in m.parameters(recurse=False):
            if not p.any():
                p.data.normal_(std=0.1)
    x = torch.rand(1, 3, 75, 101)
    net.train()
    outs = net(x)
    assert [tuple(o.shape[2:]) for o in outs] == [(19, 26), (10, 13), (5, 7), (3, 4)]
    sum(o.square().sum() for o in outs).backward()
    # the value of a bias before a batch norm, or before a softmax, has no effect
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent
    layers = nn.Conv2d | nn.Conv1d | nn.Linear
    assert not [
        n for n, m in net.named_modules() if isinstance(m, layers) and not m.weight.grad.any()
    ]
    net.eval()
    with torch.no_grad():
        assert all(o.is_contiguous() for o in net(x))


@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_checkpointing_changes_nothing(name):
    grads = []
    for with_cp in (False, True):
        net = with_plugin(DetResNet, name, resnet=dict(with_cp=with_cp, zero_init_residual=False))
        net.train()
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        net(x)[-1].square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def stand_alone(name, channels=16):
    torch.manual_seed(0)
    cfg = PLUGINS[name][0] if name in PLUGINS else OPERATORS[name]
    return MODELS.build(dict(type=f'hybrid_mm.{name}', in_channels=channels, **cfg))


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_gradient_is_the_derivative(name, images):
    """Also in training with one image, where torch's batch norm reads some layouts wrongly."""
    module = stand_alone(name).double().train()
    for p in module.parameters():
        p.data.normal_(std=0.3)
    x = torch.randn(images, 16, 5, 7, dtype=torch.float64)
    dy, u = torch.randn_like(x), torch.randn_like(x)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(module(leaf), leaf, dy)
    with torch.no_grad():
        difference = ((module(x + 1e-6 * u) - module(x - 1e-6 * u)) * dy).sum() / 2e-6
    torch.testing.assert_close((grad * u).sum(), difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_autocast(name, dtype):
    module, x = stand_alone(name), torch.rand(2, 16, 9, 11)
    full = module.train()(x)
    with torch.autocast('cpu', dtype):
        half = module(x)
    half.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    assert (full - half.float()).norm() < 0.03 * full.norm()


@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_half_precision_without_autocast_and_batches_without_images(name):
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for training in (True, False):
            module = stand_alone(name).to(dtype).train(training)
            x = torch.rand(2, 16, 9, 13).to(dtype).requires_grad_()
            out = module(x)
            out.float().square().mean().backward()
            assert out.dtype == dtype
            assert all(t.grad.isfinite().all() for t in (x, *module.parameters()))
            module.zero_grad()
            before = copy.deepcopy(module.state_dict())
            none = x.detach()[:0].requires_grad_()
            out = module(none)
            out.sum().backward()
            assert out.shape == none.grad.shape == none.shape
            assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
            after = module.state_dict()
            assert all(torch.equal(after[k], v) for k, v in before.items() if v.ndim)


@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_compiles_to_one_graph(name):
    module = stand_alone(name).eval()
    compiled = torch.compile(module, fullgraph=True, backend='eager')
    x = torch.rand(2, 16, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_channels_last_and_a_single_position(name):
    module = stand_alone(name).eval()
    x = torch.rand(2, 16, 6, 5)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), module(x))
    if name not in ('LambdaLayer', 'SelectiveKernel', 'NonLocal2d'):
        assert module.train()(x[:1, :, :1, :1]).isfinite().all()  # an image of 32 x 32 at stride 32


# -- initial values --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """Weights of plain ResNets."""
    folder, paths = tmp_path_factory.mktemp('weights'), {}
    for name, base in RESNETS.items():
        net = with_plugin(base, 'SE', stages=(False,) * 4)
        for p in net.parameters():
            p.data.uniform_(-0.1, 0.1)
        paths[name] = str(folder / f'{name}.pth')
        torch.save(net.state_dict(), paths[name])
    return paths


@pytest.mark.parametrize('pretrained', [False, True])
@pytest.mark.parametrize('base', RESNETS)
@pytest.mark.parametrize('name', PLUGINS)
def test_identity_stays_the_identity(name, base, pretrained, plain):
    init_cfg = dict(type='Pretrained', checkpoint=plain[base]) if pretrained else None
    cfg, resnet = PLUGINS[name][1], dict(init_cfg=init_cfg)
    net = with_plugin(RESNETS[base], name, resnet=resnet, **cfg)
    net.init_weights()
    own, trunk = net.state_dict(), torch.load(plain[base])
    assert all(torch.equal(own[key], value) for key, value in trunk.items()) == pretrained
    for block in modules(net, 'Bottleneck'):  # zero in a ResNet that starts from scratch
        nn.init.constant_(block.norm3.weight, 0.5)
    seen = []

    def compare(_, inputs, output):  # at once: the block adds to the output in place
        seen.append(inputs[0].any().item())
        torch.testing.assert_close(output, inputs[0])

    for module in modules(net, name):
        module.register_forward_hook(compare)
    net.train()
    net(torch.rand(2, 3, 64, 96))
    assert seen == [True] * 16


def test_stock_context_block_loses_its_zeros():
    """Why ours exists; if this fails, mmcv's has become as good."""
    for name, zero in (('ContextBlock', False), ('hybrid_mm.ContextBlock', True)):
        entry = dict(cfg=dict(type=name, ratio=1 / 4), position='after_conv3')
        net = DetResNet(plugins=[entry], **SMALL)
        net.init_weights()
        last = [m.channel_add_conv[-1].weight for m in modules(net, 'ContextBlock')]
        assert all(bool(w.any()) != zero for w in last)


def test_generalized_attention_of_mmcv_needs_no_wrapper():
    entry = dict(cfg=dict(type='GeneralizedAttention', num_heads=2), position='after_conv2')
    net = DetResNet(plugins=[entry], **SMALL)
    net.init_weights()
    x = torch.randn(1, 8, 9, 6)
    net.eval()
    for block in net.layer1:
        assert torch.equal(block.gen_attention_block(x), x)


@pytest.mark.parametrize('name', [*PLUGINS, *OPERATORS])
def test_initial_values_are_those_of_the_constructor(name):
    """The spread of every parameter in a ResNet after its He initialisation."""
    net = with_plugin(DetResNet, name, stages=(False, False, False, True))
    net.init_weights()
    cfg = PLUGINS[name][0] if name in PLUGINS else OPERATORS[name]
    for module in modules(net, name):
        channels = 256 if name in PLUGINS else module_width(module)
        fresh = MODELS.build(dict(type=f'hybrid_mm.{name}', in_channels=channels, **cfg))
        for key, value in module.state_dict().items():
            expected = fresh.state_dict()[key].float()
            assert value.shape == expected.shape
            if value.numel() > 60:
                torch.testing.assert_close(value.std(), expected.std(), rtol=0.5, atol=1e-8)
            elif 'norm' in key:  # constants
                torch.testing.assert_close(value.float(), expected)


def module_width(operator):
    return next(m for m in operator.modules() if isinstance(m, nn.Conv2d)).in_channels


def test_non_local_keeps_its_spread():
    cfg = dict(std=0.3, zeros_init=False)
    net = with_plugin(DetResNet, 'NonLocal2d', **cfg)
    net.init_weights()
    for module in modules(net, 'NonLocal2d'):
        for part in (module.theta, module.phi, module.conv_out):
            conv = part if isinstance(part, nn.Sequential) else [part]
            assert conv[0].conv.weight.std().item() == pytest.approx(0.3, rel=0.3)


# -- batch norms in frozen networks ----------------------------------------------------------------


def moved(net, x):
    """Names of batch norms whose statistics change in training."""
    before = copy.deepcopy(net.state_dict())
    net(x)
    return {
        key.rpartition('.')[0]
        for key, value in net.state_dict().items()
        if key.endswith('running_mean') and not torch.equal(value, before[key])
    }


@pytest.mark.parametrize('name', ['CBAM', 'BAM', 'GatherExcite', 'TripletAttention',
                                  'CoordinateAttention', 'NonLocal2d'])  # fmt: skip
def test_norms_of_plugins_train_in_a_frozen_network(name):
    x, cfg = torch.rand(2, 3, 64, 96), PLUGINS[name][1]
    resnet = dict(norm_eval=True, frozen_stages=1)
    net = with_plugin(DetResNet, name, resnet=resnet, **cfg)
    net.train()
    inside = {n for n, m in net.named_modules() if type(m).__name__ == name}
    norms = {n for n, m in net.named_modules() if isinstance(m, _BatchNorm)}
    of_plugins = {n for n in norms if any(n.startswith(f'{i}.') for i in inside)}
    expected = {n for n in of_plugins if not n.startswith('layer1.')}
    assert expected
    assert moved(net, x) == expected
    net.eval()
    assert not moved(net, x)
    if name != 'NonLocal2d':
        kept = with_plugin(DetResNet, name, resnet=resnet, norm_eval=True, **cfg)
        kept.train()
        assert not moved(kept, x)


def test_norms_of_operators_follow_the_network():
    net = with_plugin(DetResNet, 'SelectiveKernel', resnet=dict(norm_eval=True))
    net.train()
    assert not moved(net, torch.rand(2, 3, 64, 96))


@pytest.mark.parametrize('name', ['BAM', 'SelectiveKernel'])
def test_one_image_uses_running_statistics_of_pooled_maps(name):
    module = stand_alone(name).train()
    norms = module.channel_norms if name == 'BAM' else [module.norm]
    x = torch.rand(1, 16, 6, 5)
    assert module(x).isfinite().all()
    assert not any(norm.running_mean.any() for norm in norms)
    module(torch.cat((x, 2 * x)))
    assert all(norm.running_mean.any() for norm in norms)


# -- several plugins -------------------------------------------------------------------------------


@pytest.mark.parametrize('base', [DetResNet, DetResNeXt, SegResNet, SegResNetV1c])
def test_several_of_a_class(base):
    """MMSegmentation's own block applies the last of several only."""
    entries = [
        dict(cfg=dict(type='hybrid_mm.SE', postfix='_a'), position='after_conv3'),
        dict(cfg=dict(type='hybrid_mm.SE', postfix='_b', ratio=4), position='after_conv3'),
        dict(cfg=dict(type='hybrid_mm.ECA'), position='after_conv2', stages=(False, True) * 2),
        dict(cfg=dict(type='hybrid_mm.CBAM', ratio=2), position='after_conv1'),
    ]
    net = (
        base(plugins=entries, **SMALL)
        if base is not SegResNetV1c
        else base(plugins=entries, depth=50, base_channels=8, stem_channels=8)
    )
    block = net.layer2[0].eval()
    assert {'se_a', 'se_b', 'eca', 'cbam'} <= dict(block.named_children()).keys()
    assert not hasattr(net.layer1[0], 'eca')
    x = torch.rand(1, 32, 9, 7)
    y = block.cbam(block.relu(block.norm1(block.conv1(x))))
    y = block.eca(block.relu(block.norm2(block.conv2(y))))
    y = block.se_b(block.se_a(block.norm3(block.conv3(y))))
    torch.testing.assert_close(block(x), torch.relu(y + block.downsample(x)))


def test_same_name_twice():
    entries = plugins('SE') + plugins('SE')
    with pytest.raises(AssertionError, match='duplicate plugin se'):
        DetResNet(plugins=entries, **SMALL)


# -- what AttentionResNet puts into a stage --------------------------------------------------------


@pytest.mark.parametrize('base', [DetResNet, SegResNet])
def test_what_stands_in_frozen_stages_is_frozen(base):
    net = AttentionResNet(
        base,
        conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel')),
        stage_plugins=dict(cfg=dict(type='hybrid_mm.BAM', ratio=4)),
        frozen_stages=2,
        norm_eval=False,
        **SMALL,
    )
    for train in (False, True):
        if train:
            net.train()
        for stage, frozen in zip(net.res_layers, (True, True, False, False), strict=True):
            parameters = list(getattr(net, stage).named_parameters())
            assert any('bam' in name for name, _ in parameters)
            assert {p.requires_grad for _, p in parameters} == {not frozen}
            if train:
                assert {m.training for m in getattr(net, stage).modules()} == {not frozen}


@pytest.mark.parametrize('base', [DetResNet, SegResNet])
def test_operators_have_stride_and_dilation_of_the_convolutions(base):
    settings = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **SMALL)
    plain = base(**settings)
    net = AttentionResNet(
        base,
        conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel', kernel_sizes=(3, 7))),
        **settings,
    )
    for stage in net.res_layers:
        for block, old in zip(getattr(net, stage), getattr(plain, stage), strict=True):
            small, large = (path['conv'] for path in block.conv2.paths)
            assert (small.stride, small.dilation) == (old.conv2.stride, old.conv2.dilation)
            assert (large.stride, large.dilation) == (
                old.conv2.stride,
                tuple(3 * d for d in old.conv2.dilation),
            )
    assert plain.layer4[1].conv2.dilation == (4, 4)


def test_blocks_and_norms_that_are_chosen():
    """Stages and blocks of an entry, -1 the last; the norm goes with operators that have one."""

    def made(**entry):
        entry = dict(cfg=dict(type='hybrid_mm.SelectiveKernel'), **entry)
        net = AttentionResNet(DetResNet, conv2=entry, **SMALL)
        return {
            (stage, i): isinstance(block.norm2, nn.Identity)
            for stage in range(4)
            for i, block in enumerate(getattr(net, f'layer{stage + 1}'))
            if type(block.conv2).__name__ == 'SelectiveKernel'
        }

    every = {(stage, i) for stage, depth in enumerate((3, 4, 6, 3)) for i in range(depth)}
    assert made() == dict.fromkeys(every, True)
    assert made(norm=True) == dict.fromkeys(every, False)
    chosen = made(stages=(False, True, True, False), blocks=(0, -1))
    assert chosen == dict.fromkeys([(1, 0), (1, 3), (2, 0), (2, 5)], True)
    cfg = dict(type='hybrid_mm.ACmix', heads=2, kernel_att=3)
    entry = dict(cfg=cfg, stages=(True, False, False, False))
    kept = AttentionResNet(DetResNet, conv2=entry, **SMALL)
    assert isinstance(kept.layer1[0].norm2, nn.BatchNorm2d)
    entry['norm'] = False
    gone = AttentionResNet(DetResNet, conv2=entry, **SMALL)
    assert isinstance(gone.layer1[0].norm2, nn.Identity)
    cfg = dict(type='BN', eps=1e-3)
    net = AttentionResNet(
        DetResNet, conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel')), norm_cfg=cfg, **SMALL
    )
    assert {m.eps for m in net.modules() if isinstance(m, _BatchNorm)} == {1e-3}


def test_places_of_stage_plugins():
    cfg = dict(type='hybrid_mm.SE')
    entries = [
        dict(cfg=dict(cfg, postfix='_end')),
        dict(cfg=cfg, stages=(False, False, True, False), position='before_last_block'),
    ]
    net = AttentionResNet(DetResNet, stage_plugins=entries, **SMALL)
    names = [list(getattr(net, stage)._modules) for stage in net.res_layers]
    assert names[0] == ['0', '1', '2', 'se_end']
    assert names[2] == ['0', '1', '2', '3', '4', 'se', '5', 'se_end']
    assert net.layer3.se.fc1.in_channels == 4 * 8 * 4
    for wrong, message in (
        (dict(cfg=cfg, position='first'), "position must be one of .*got 'first'"),
        (dict(cfg=cfg, stages=(True,)), 'one bool for each of 4 stages'),
        ([dict(cfg=cfg), dict(cfg=cfg)], 'se occurs twice in a stage'),
        (dict(cfg=cfg, place=1), r"with cfg expected, got \['cfg', 'place'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            AttentionResNet(DetResNet, stage_plugins=wrong, **SMALL)
    with pytest.raises(ValueError, match='conv2 needs bottlenecks'):
        AttentionResNet(DetResNet, conv2=dict(cfg=dict(type='hybrid_mm.ACmix')), depth=18)


# -- figures ---------------------------------------------------------------------------------------

FC = 2048 * 1000 + 1000
ALL, C3_C5 = (True,) * 4, (False, True, True, True)


def entry(name, stages=ALL, **cfg):
    return dict(cfg=dict(type=f'hybrid_mm.{name}', **cfg), position='after_conv3', stages=stages)


FIGURES = {
    # parameters of ResNet-50 with 1000 classes; multiply-adds at 224 x 224 in G
    'plain': (dict(plugins=None), 25_557_032, 4.09),
    'se': (dict(plugins=[entry('SE')]), 28_088_024, 4.092),
    'cbam': (dict(plugins=[entry('CBAM')]), 28_089_624, 4.096),
    'eca': (
        dict(plugins=[
            entry('ECA', tuple(i == j for j in range(4)), kernel_size=k)
            for i, k in enumerate((3, 5, 5, 7))]),
        25_557_112, 4.09),
    'triplet': (dict(plugins=[entry('TripletAttention')]), 25_561_832, None),
    'gc-r16': (dict(plugins=[entry('ContextBlock', C3_C5, ratio=1 / 16)]), 28_078_773, 4.096),
    'gc-r4': (dict(plugins=[entry('ContextBlock', C3_C5, ratio=1 / 4)]), 35_557_941, 4.103),
    'coordinate': (dict(plugins=[entry('CoordinateAttention')]), 27_474_864, None),
    'bam': (
        dict(stage_plugins=dict(cfg=dict(type='hybrid_mm.BAM'), stages=(True, True, True, False))),
        25_915_099, 4.171),
}  # fmt: skip


@pytest.mark.parametrize('name', FIGURES)
def test_figures_of_resnet_50(name):
    settings, params, macs = FIGURES[name]
    with torch.device('meta'):
        net = AttentionResNet('mmdet.ResNet', depth=50, **settings)
    total = count(net, (224, 224))[0]
    assert total.params + FC == params
    if macs is not None:
        # the reference's multiply-adds are rounded, and count some elementwise products
        assert (total.macs + FC) / 1e9 == pytest.approx(macs, rel=3e-3)


def test_selective_kernels_and_gather_excite_have_the_papers_size():
    """27.5 M for SKNet-50, and 31.2 M and 33.7 M for GE of the whole map without and with MLP."""
    with torch.device('meta'):
        sk = AttentionResNet(
            'mmdet.ResNeXt',
            depth=50,
            groups=32,
            base_width=4,
            conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel')),
        )
        sizes = {}
        for mlp in (False, True):
            entries = [
                entry(
                    'GatherExcite',
                    tuple(i == j for j in range(4)),
                    extent=0,
                    map_size=56 >> i,
                    mlp=mlp,
                )
                for i in range(4)
            ]
            net = DetResNet(depth=50, plugins=entries)
            sizes[mlp] = sum(p.numel() for p in net.parameters()) + FC
    assert sum(p.numel() for p in sk.parameters()) + FC == 27_479_784
    assert sizes[False] / 1e6 == pytest.approx(31.2, abs=0.15)
    assert sizes[True] / 1e6 == pytest.approx(33.7, abs=0.15)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'cfg', 'message'),
    [
        ('SE', dict(ratio=0), 'SE: ratio must be positive, got 0'),
        ('SE', dict(act='gelu'), "act must be one of relu, silu, got 'gelu'"),
        ('SE', dict(gate='tanh'), "gate must be one of sigmoid, hard_sigmoid, got 'tanh'"),
        ('CBAM', dict(ratio=32), 'CBAM: in_channels // ratio must be positive'),
        ('CBAM', dict(pools=('avg', 'med')), 'pools must be one of avg, max, lp, lse'),
        ('CBAM', dict(pools=()), 'CBAM: number of pools must be positive'),
        ('CBAM', dict(kernel_size=4), 'CBAM: kernel_size must be odd and positive, got 4'),
        ('BAM', dict(ratio=32), 'BAM: in_channels // ratio must be positive'),
        ('BAM', dict(channel_layers=0), 'BAM: channel_layers must be positive'),
        ('ECA', dict(kernel_size=2), 'ECA: kernel_size must be odd'),
        ('GatherExcite', dict(extent=3), 'extent must be 0 or a power of 2, got 3'),
        ('GatherExcite', dict(extent=0), 'map_size is needed for extent=0'),
        ('GatherExcite', dict(map_size=7), 'map_size is needed for extent=0'),
        ('GatherExcite', dict(learned=False, init_identity=True), 'init_identity needs parameters'),
        ('TripletAttention', dict(kernel_size=6), 'TripletAttention: kernel_size must be odd'),
        ('CoordinateAttention', dict(min_channels=0), 'min_channels must be positive'),
        ('SelectiveKernel', dict(kernel_sizes=(1, 3)), 'kernel size - 2 must be positive'),
        ('SelectiveKernel', dict(kernel_sizes=(3, 5, 7), split_input=True), '16 channels cannot'),
        ('SelectiveKernel', dict(padding=2), 'with padding None or 1, got 2'),
        ('SelectiveKernel', dict(kernel_size=1), 'with kernel_size 3, got 1'),
        ('LambdaLayer', dict(num_heads=3), '16 channels are not a multiple of 3 heads'),
        ('LambdaLayer', dict(window=4), 'LambdaLayer: window must be odd'),
        ('LambdaLayer', dict(groups=2), 'LambdaLayer replaces convolutions with groups 1, got 2'),
        ('LambdaLayer', dict(stride=3), 'stride must be 1 or 2, got 3'),
        ('LambdaLayer', dict(bias=True), 'with bias False, got True'),
        ('ACmix', dict(heads=3), 'heads must divide the 16 output channels, got 3'),
        ('ACmix', dict(kernel_att=4), 'kernel_att must be odd, got 4'),
        ('ACmix', dict(groups=2), 'ACmix replaces convolutions with groups 1, got 2'),
    ],
)
def test_errors(name, cfg, message):
    with pytest.raises(ValueError, match=message.replace('(', r'\(')):
        getattr(hybrid_mm.plugins, name)(16, **cfg)


def test_options_have_an_effect():
    """Options that no published network uses."""
    x = torch.rand(2, 16, 8, 10)
    torch.manual_seed(0)
    for pool in ('lp', 'lse'):
        gate = hybrid_mm.plugins.CBAM(16, 4, pools=('avg', pool)).eval()
        plain = copy.deepcopy(gate)
        plain.channel_gate.pools = plain.channel_gate.pools[:1]
        assert not torch.equal(gate(x), plain(x))
    lp = hybrid_mm.plugins.cbam._POOLS['lp'](x)
    torch.testing.assert_close(lp, x.square().sum((2, 3)).sqrt())
    both = hybrid_mm.plugins.TripletAttention(16).eval()
    two = hybrid_mm.plugins.TripletAttention(16, spatial=False).eval()
    two.load_state_dict(both.state_dict() | {}, strict=False)
    torch.testing.assert_close(3 * both(x) - 2 * two(x), x * both.hw(x))
    assert issubclass(hybrid_mm.plugins.SE, Plugin)


# -- what AttentionResNet puts in the place of the stem ------------------------------------------


@pytest.mark.parametrize('deep', [False, True])
def test_stem_of_attention(deep):
    """It is the stem of SASAResNet, with its names, and freezes with the network."""
    stem = dict(type='hybrid_mm.SASAStem', heads=2)
    net = AttentionResNet(
        DetResNet, stem=stem, deep_stem=deep, frozen_stages=0, norm_cfg=NORM_CFG, **SMALL
    )
    arch = dict(SASAResNet.resolve_arch('r26').to_dict(), stem=8)
    ours = SASAResNet(arch, 'attention', stem_heads=2, heads=0, norm_cfg=NORM_CFG)
    net.init_weights()
    names = [name for name, _ in net.named_parameters() if not name.startswith('layer')]
    assert names == [f'stem.{name}' for name, _ in ours.stem.named_parameters()]
    assert isinstance(net, DetResNet)
    assert net.stem.norm.eps == 1e-3
    net.stem.load_state_dict(ours.stem.state_dict())
    x = torch.rand(1, 3, 33, 50)
    wanted = ours.stem.eval()(x)
    net.eval()
    torch.testing.assert_close(net.stem(x), wanted)
    assert net(x)[0].shape[-2:] == wanted.shape[-2:] == (9, 13)
    frozen = {p.requires_grad for p in net.stem.parameters()}
    assert frozen == {False}
    net.train()
    assert not net.stem.training
    assert net.layer1.training
