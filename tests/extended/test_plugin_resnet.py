"""ResNet and ResNeXt with plugins: MMDetection's networks and weights, in every library."""

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import nn

import hybrid_mm.registry  # noqa: F401

SMALL = dict(depth=50, base_channels=8, norm_eval=False)
GC = [dict(cfg=dict(type='ContextBlock', ratio=1 / 4), stages=(False, True, True, True),
           position='after_conv3')]  # fmt: skip
SINGLE = [dict(cfg=dict(type='NonLocal2d'), stages=(False, False, True, False), block=-2)]


def build(kind='hybrid_mm.PluginResNet', **kwargs):
    torch.manual_seed(0)
    return ROOT.build(dict(type=kind, **{**SMALL, **kwargs}))


def randomise(model):
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if tensor.dim() == 1 else tensor.normal_(std=0.05)
    model.eval()  # MMDetection's returns None
    return model


@pytest.mark.parametrize('kind, extra', [
    ('ResNet', {}), ('ResNet', dict(deep_stem=True)), ('ResNeXt', dict(groups=2, base_width=4)),
])  # fmt: skip
def test_weights_go_both_ways(kind, extra):
    ours = randomise(build(f'hybrid_mm.Plugin{kind}', plugins=GC, **extra))
    theirs = build(f'mmdet.{kind}', plugins=GC, **extra)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.eval()
    x = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(ours(x), theirs(x), strict=True))
    randomise(theirs)
    assert not torch.equal(ours(x)[0], theirs(x)[0])
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(ours(x), theirs(x), strict=True))


def test_classifier_checkpoint_into_detection_backbone(tmp_path):
    """What MMPretrain saves of an ImageNet run starts a detector, and the other way round."""
    head = dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=256)
    backbone = dict(type='hybrid_mm.PluginResNet', plugins=GC, **SMALL, out_indices=(3,))
    classifier = ROOT.build(
        dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head,
             neck=dict(type='mmpretrain.GlobalAveragePooling'))
    )  # fmt: skip
    randomise(classifier)
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'x.pth')
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'), prefix='backbone.')
    for kind in ('hybrid_mm.PluginResNet', 'mmdet.ResNet'):
        detector = build(kind, plugins=GC, init_cfg=init)
        detector.init_weights()
        for key, value in classifier.backbone.state_dict().items():
            assert torch.equal(detector.state_dict()[key], value), key

    detector = {f'backbone.{k}': v for k, v in randomise(detector).state_dict().items()}
    torch.save(dict(state_dict=detector), tmp_path / 'x.pth')
    model = build(plugins=GC, out_indices=(3,), init_cfg=init)
    model.init_weights()
    assert all(torch.equal(v, detector[f'backbone.{k}']) for k, v in model.state_dict().items())


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_library_builds_it(scope):
    registry = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
    model = registry.build(dict(type='hybrid_mm.PluginResNet', plugins=GC, **SMALL))
    assert [m.shape[1] for m in model(torch.rand(1, 3, 64, 64))] == [32, 64, 128, 256]


class Plus(nn.Module):
    """A module that adds a constant to a map."""

    def __init__(self, in_channels, value=1.0):
        super().__init__()
        self.value = nn.Parameter(torch.full((in_channels, 1, 1), value))

    def forward(self, x):
        return x + self.value


def test_modules_behind_blocks():
    behind = [
        dict(cfg=dict(type=Plus, value=7.0), stages=(True, False, False, False)),
        dict(cfg=dict(type=Plus, value=3.0), stages=(False, False, True, False), block=-2),
    ]
    plain, model = build().eval(), build(stage_plugins=behind).eval()
    assert set(model.state_dict()) - set(plain.state_dict()) == {'plus1.value', 'plus3.value'}
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(x)[0], plain(x)[0] + 7)
    z = model(x)[1]
    for index, block in enumerate(model.layer3):
        z = block(z) + (3 if index == 4 else 0)
    assert torch.equal(model(x)[2], z)
    frozen = build(stage_plugins=behind, frozen_stages=2).train()
    assert {n for n, p in frozen.named_parameters() if p.requires_grad and 'plus' in n} == {
        'plus3.value'
    }


@pytest.mark.parametrize('plugin, message', [
    (dict(cfg=dict(type=Plus), stages=(True,)), '4 expected'),
    (dict(cfg=dict(type=Plus), block=3), 'stage 1 has no block 3'),
])  # fmt: skip
def test_wrong_stage_plugins(plugin, message):
    with pytest.raises(ValueError, match=message):
        build(stage_plugins=[plugin])
    with pytest.raises(ValueError, match='plus1 is there already'):
        build(stage_plugins=[dict(cfg=dict(type=Plus))] * 2)


class Shift(nn.Module):
    """In the place of a 3x3 convolution."""

    def __init__(self, in_channels, channels, kernel_size, stride, padding, dilation, bias):
        super().__init__()
        self.stride, self.weight = stride, nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.weight * x[..., :: self.stride, :: self.stride]


def test_another_operator_in_the_place_of_conv2():
    conv2 = dict(cfg=dict(type=Shift), stages=(False, False, False, True), norm=False)
    model = build(conv2=conv2)
    assert isinstance(model.layer4[0].conv2, Shift)
    assert isinstance(model.layer4[2].bn2, nn.Identity)
    assert isinstance(model.layer3[0].conv2, nn.Conv2d)
    assert 'layer4.0.bn2.weight' not in model.state_dict()
    assert [m.shape[-1] for m in model(torch.rand(2, 3, 64, 64))] == [16, 8, 4, 2]
    with pytest.raises(ValueError, match='conv2 and dcn'):
        build(conv2=conv2, dcn=dict(type='DCN'), stage_with_dcn=(True,) * 4)


def test_a_single_non_local_block_starts_as_identity():
    plain, model = build().eval(), build(stage_plugins=SINGLE).eval()
    x = torch.rand(1, 3, 64, 64)
    assert set(dict(model.plugin_modules())) == {'nonlocal_block3'}
    assert torch.equal(model(x)[-1], plain(x)[-1])


class Norm(nn.BatchNorm2d):
    def __init__(self, in_channels):
        super().__init__(in_channels)


def test_norms_of_modules_may_learn_their_statistics():
    plugins = [dict(cfg=dict(type=Norm), position='after_conv3')]
    settings = dict(plugins=plugins, norm_eval=True, frozen_stages=1)
    held = build(**settings).train()
    free = build(**settings, norm_eval_plugins=False).train()
    assert not any(m.training for m in held.modules() if isinstance(m, nn.BatchNorm2d))
    training = {n for n, m in free.named_modules() if m.training and isinstance(m, nn.BatchNorm2d)}
    assert training == {n for n, _ in free.plugin_modules() if not n.startswith('layer1')}


def pretrained(tmp_path, source, **kwargs):
    torch.save(source.state_dict() | {'fc.weight': torch.zeros(1)}, tmp_path / 'x.pth')
    model = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')), **kwargs)
    model.init_weights()
    return model


def test_weights_of_a_plain_resnet(tmp_path):
    source = randomise(build('mmdet.ResNet'))
    model = pretrained(tmp_path, source, plugins=GC, frozen_stages=1).eval()
    x = torch.rand(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(model(x), source(x), strict=True))
    everywhere = [{**GC[0], 'stages': (True,) * 4}]
    with pytest.raises(ValueError, match=r'frozen_stages=1 would freeze untrained'):
        pretrained(tmp_path, source, plugins=everywhere, frozen_stages=1)


def test_weights_of_another_network_are_refused(tmp_path):
    ratio = [{**GC[0], 'cfg': dict(type='ContextBlock', ratio=1 / 8)}]
    with pytest.raises(ValueError, match=r'does not fit this PluginResNet.*another shape'):
        pretrained(tmp_path, build(plugins=ratio), plugins=GC)
    with pytest.raises(ValueError, match=r'unexpected: layer2\.0\.context_block'):
        pretrained(tmp_path, build(plugins=GC))
    with pytest.raises(FileNotFoundError, match='pre-trained weights not found'):
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'))
        build(init_cfg=init).init_weights()
