"""What a training takes from the file of ``load_from``, and the line that says so."""

import re

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import VAN, MViTv2
from hybrid_mm.checkpoints import CheckpointError
from hybrid_mm.engine.starting_weights import starting_weights

NAMES = {
    'embed.conv.': 'patch_embed{}.proj.',
    'embed.norm.': 'patch_embed{}.norm.',
    'norm.': 'norm{}.',
    'blocks.': 'block{}.',
}
INNER = {'proj_in': 'proj_1', 'proj_out': 'proj_2', 'mlp.dwconv': 'mlp.dwconv.dwconv'} | {
    f'attn.lka.{a}.': f'attn.spatial_gating_unit.{b}.'
    for a, b in dict(local='conv0', dilated='conv_spatial', pointwise='conv1').items()
}


def to_official(key):
    """Name of a tensor of VAN in its official files."""
    _, stage, rest = key.split('.', 2)
    start = next(name for name in NAMES if rest.startswith(name))
    rest = rest.removeprefix(start)
    for ours, theirs in INNER.items():
        rest = rest.replace(ours, theirs)
    return NAMES[start].format(int(stage) + 1) + rest


class Detector(nn.Module):
    def __init__(self, classes=3, width=8):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, classes)


def read(model, weights):
    return starting_weights(model, weights, 'x.pth')


def test_all_of_a_file():
    model = Detector()
    found, text, left = read(model, model.state_dict())
    assert found.keys() == model.state_dict().keys() and left == 0
    assert text == 'load_from x.pth: 8 of 8 tensors of the model loaded'


def test_parts_are_counted_and_named():
    weights = Detector(classes=5).state_dict() | {'neck.w': torch.zeros(2), 'n': torch.tensor(1)}
    del weights['backbone.0.bias']
    _, text, left = read(Detector(), weights)
    assert left == 3
    assert text == (
        'load_from x.pth: 5 of 8 tensors of the model loaded, 3 keep their initial values (2 of '
        'another shape: head.weight, head.bias; 1 not in the file: backbone.0.bias), 1 of the file '
        'unused (neck.w)'
    )


def test_nothing_fits():
    """Counters and indices fit many models; they are no start."""
    other = Detector(width=16, classes=1).state_dict()
    del other['head.bias']
    assert other['backbone.1.num_batches_tracked'].shape == ()
    for weights in (other, {'a.weight': torch.zeros(2)}, {'head.weight': torch.zeros(8, 3)}):
        with pytest.raises(CheckpointError, match=r'^checkpoint x\.pth has nothing that fits'):
            read(Detector(), weights)


def test_prefixes_and_backbones_alone():
    model = Detector()
    state = model.state_dict()
    for weights, count in (
        ({f'module.{k}': v for k, v in state.items()}, 8),
        ({f'module.{k}': v for k, v in state.items()} | {'epochs': torch.tensor(1)}, 8),
        (model.backbone.state_dict(), 6),
        (model.backbone.state_dict() | {'fc.weight': torch.zeros(2)}, 6),
    ):
        found, text, _ = read(model, weights)
        assert f': {count} of 8 tensors' in text
        assert ('(the backbone alone)' in text) == (count == 6)
        assert torch.equal(found['backbone.0.weight'], state['backbone.0.weight'])


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_official_layout(prefix):
    """The file of an official repository, alone or within a detector."""
    model = nn.Module()
    model.backbone = VAN(arch=dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4))
    model.head = nn.Linear(8, 2)
    official, expected = {}, model.backbone.state_dict()
    for key, value in expected.items():
        official[prefix + to_official(key)] = value
    official['head.weight'] = model.head.weight
    found, text, _ = read(model, official)
    floats = sum(v.is_floating_point() for v in expected.values())
    assert 'layout van' in text
    assert f': {floats + (prefix != "")} of {floats + 2} tensors' in text, text
    assert all(torch.equal(found[f'backbone.{k}'], v) for k, v in expected.items())


def test_official_classifier():
    """Its linear layer is taken with the backbone if the number of classes is the same."""
    model = nn.Module()
    model.backbone = VAN(arch=dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4))
    model.head = nn.Module()
    model.head.fc = nn.Linear(8, 2)
    official = {to_official(k): v for k, v in model.backbone.state_dict().items()}
    weight, bias = torch.rand(2, 8), torch.rand(2)
    found, text, left = read(model, {**official, 'head.weight': weight, 'head.bias': bias})
    assert left == 0 and '(layout van) (classifier): ' in text and 'unused' not in text
    assert torch.equal(found['head.fc.weight'], weight) and torch.equal(found['head.fc.bias'], bias)
    other = {**official, 'head.weight': torch.rand(5, 8), 'head.bias': torch.rand(5)}
    _, text, left = read(model, other)
    assert left == 2 and '(the backbone alone): ' in text


def test_key_that_an_official_layout_does_not_have():
    """Without a conversion names that agree by chance are no start."""
    model = MViTv2(dict(embed_dim=4, heads=1, depths=[1] * 4), img_size=64)
    state = model.state_dict()
    official = {
        re.sub(r'stages\.(\d)\.norm', r'norm\1', k).replace('.relative.rel_', '.rel_pos_'): v
        for k, v in state.items()
    }
    official['patch_embed.proj.weight'] = official.pop('stages.0.embed.proj.weight')
    official['patch_embed.proj.bias'] = official.pop('stages.0.embed.proj.bias')
    _, _, left = read(model, official)
    assert left == 0
    with pytest.raises(
        CheckpointError, match=r"mvitv2: do not know the key 'aux\.weight' \(2, 2\)"
    ):
        read(model, official | {'aux.weight': torch.zeros(2, 2)})
