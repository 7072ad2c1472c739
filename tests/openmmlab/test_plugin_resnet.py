"""ResNet and ResNeXt with plugins: MMDetection's networks and weights, in every library."""

import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from torch import nn

import hybrid_mm.registry  # noqa: F401

SMALL = dict(depth=50, base_channels=8, norm_eval=False)
GC = [dict(cfg=dict(type='ContextBlock', ratio=1 / 4), stages=(False, True, True, True),
           position='after_conv3')]  # fmt: skip


def build(name='hybrid_mm.PluginResNet', **kwargs):
    torch.manual_seed(0)
    return ROOT.build(dict(type=name, **{**SMALL, **kwargs}))


def randomise(model):
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if tensor.dim() == 1 else tensor.normal_(std=0.05)
    model.eval()  # MMDetection's returns None
    return model


@pytest.mark.parametrize('name, extra', [
    ('ResNet', {}), ('ResNet', dict(deep_stem=True)), ('ResNeXt', dict(groups=2, base_width=4)),
])  # fmt: skip
def test_weights_go_both_ways(name, extra):
    ours = randomise(build(f'hybrid_mm.Plugin{name}', plugins=GC, **extra))
    theirs = build(f'mmdet.{name}', plugins=GC, **extra)
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
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        head=head,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):  # another test may have left its own
        classifier = ROOT.build(cfg)
    randomise(classifier)
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'x.pth')
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'), prefix='backbone.')
    for name in ('hybrid_mm.PluginResNet', 'mmdet.ResNet'):
        detector = build(name, plugins=GC, init_cfg=init)
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
    with pytest.raises(ValueError, match='frozen_stages=1 would freeze it untrained'):
        pretrained(tmp_path, source, plugins=everywhere, frozen_stages=1)


class Marked(nn.Module):
    """A plugin that says when it was initialised."""

    def __init__(self, in_channels):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(in_channels, 1, 1))

    def init_weights(self):
        self.scale.data.fill_(3.0)

    def forward(self, x):
        return x + self.scale


@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
def test_plugins_at_every_place_start_anew(tmp_path, monkeypatch, position):
    """Their weights are not in the file of a plain ResNet; all others are from there."""
    monkeypatch.setitem(ROOT.module_dict, 'Marked', Marked)
    plugins = [dict(cfg=dict(type='Marked'), position=position)]
    from mmcv.cnn.bricks import plugin

    monkeypatch.setitem(plugin.MODELS.module_dict, 'Marked', Marked)
    source = randomise(build('mmdet.ResNet'))
    model = pretrained(tmp_path, source, plugins=plugins)
    names = [name for name, _ in model.plugins_by_name()]
    blocks = [f'layer{i + 1}.{j}' for i, depth in enumerate((3, 4, 6, 3)) for j in range(depth)]
    assert [name.rpartition('.')[0] for name in names] == blocks
    for key, value in model.state_dict().items():
        if key.rpartition('.')[0] in names:
            assert (value == 3).all(), key
        else:
            assert torch.equal(value, source.state_dict()[key]), key


def test_weights_of_another_network_are_refused(tmp_path):
    ratio = [{**GC[0], 'cfg': dict(type='ContextBlock', ratio=1 / 8)}]
    with pytest.raises(ValueError, match=r'does not fit this PluginResNet.*another shape'):
        pretrained(tmp_path, build(plugins=ratio), plugins=GC)
    with pytest.raises(ValueError, match=r'unexpected: layer2\.0\.context_block'):
        pretrained(tmp_path, build(plugins=GC))
    with pytest.raises(FileNotFoundError, match='pre-trained weights not found'):
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'))
        build(init_cfg=init).init_weights()


def between(**kwargs):
    """One CBAM in every block and one BAM after each of the first three stages."""
    return build(
        'hybrid_mm.AttentionResNet',
        base='hybrid_mm.PluginResNet',
        stage_plugins=dict(cfg=dict(type='hybrid_mm.BAM'), stages=(True, True, True, False)),
        plugins=[dict(cfg=dict(type='hybrid_mm.CBAM'), position='after_conv3')],
        **kwargs,
    )


def test_plugins_in_and_between_blocks(tmp_path):
    names = [name for name, _ in between().plugins_by_name()]
    assert len(names) == 16 + 3
    assert {'layer1.0.cbam', 'layer3.bam'} <= set(names)
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    torch.save(randomise(build('mmdet.ResNet')).state_dict(), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'no weights for layer1\.0\.cbam.*frozen_stages=1'):
        between(frozen_stages=1, init_cfg=init).init_weights()
    source = randomise(between())
    torch.save(source.state_dict(), tmp_path / 'x.pth')
    model = between(frozen_stages=1, init_cfg=init)
    model.init_weights()
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('trained', [True, False])
def test_norms_of_plugins_follow_norm_eval_if_they_have_statistics(tmp_path, trained):
    source = between() if trained else build('mmdet.ResNet')
    torch.save(randomise(source).state_dict(), tmp_path / 'x.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    model = between(norm_eval=True, init_cfg=init)
    model.init_weights()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    model(torch.rand(2, 3, 64, 64))
    after = model.state_dict()
    changed = {k for k in after if 'running' in k and not torch.equal(before[k], after[k])}
    statistics = {k for k in after if '.running_' in k and 'bam.' in k}
    assert changed == (set() if trained else statistics)


def test_libraries_are_imported_when_a_config_names_it():
    code = (
        'import sys; import hybrid_mm.registry as r; r.MODELS.import_from_location(); '
        "print('PluginResNet' in r.MODELS.module_dict, 'mmdet' in sys.modules)"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.split()[-2:] == ['True', 'False'], result.stderr
