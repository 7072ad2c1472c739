"""Published classifiers under the names of MMPretrain's."""

import pytest
import torch
from torch import nn

from hybrid_mm.checkpoints import CheckpointError, check_weights
from hybrid_mm.convert import as_classifier

from ..engine.test_starting_weights import to_official

heads = pytest.importorskip('mmpretrain.models.heads')

TINY = dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4)


def classifier(head):
    from hybrid_mm.backbones import VAN

    model = nn.Module()
    model.backbone, model.head = VAN(TINY, out_indices=(3,)), head
    return model


def randomised(module):
    torch.manual_seed(0)
    state = {
        k: torch.rand_like(v) if v.is_floating_point() else v
        for k, v in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module.eval()


HEADS = {
    'linear': (heads.LinearClsHead(5, 8), {'head.fc.': 'head.'}),
    'torchvision': (heads.LinearClsHead(5, 8), {'head.fc.': 'fc.'}),
    'DeiT of MMPretrain': (heads.LinearClsHead(5, 8), {'head.fc.': 'head.layers.head.'}),
    'two layers': (
        heads.VisionTransformerClsHead(5, 8, hidden_dim=6),
        {'head.layers.pre_logits.': 'head.pre_logits.', 'head.layers.head.': 'head.'},
    ),
    'normalised': (
        heads.LeViTClsHead(5, distillation=False, in_channels=8),
        {'head.head.': 'head.'},
    ),
}


@pytest.mark.parametrize(
    ('kind', 'official'), [('linear', True), *((kind, False) for kind in HEADS)]
)
def test_a_whole_classifier_loads_strictly(kind, official):
    """The backbone in the authors' layout or in ours; what is missing or too much is named."""
    head, names = HEADS[kind]
    model = randomised(classifier(head))
    file = {}
    for key, value in model.state_dict().items():
        name = key.removeprefix('backbone.')
        if key.startswith('backbone.'):
            name = to_official(name) if official else name
        for ours, theirs in names.items():
            name = name.replace(ours, theirs) if key.startswith(ours) else name
        file[name] = value
    found = check_weights(model, file, 'x.pth')
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())

    last = list(file)[-1]
    for wrong, message in (
        ({k: v for k, v in file.items() if k != last}, '1 missing: head'),
        ({**file, last: torch.zeros(9)}, '1 of another shape: head'),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            check_weights(model, wrong, 'x.pth')
        assert '(classifier):' in str(caught.value)
    unknown = 'do not know the key' if official else '1 unexpected: '
    with pytest.raises(CheckpointError, match=rf"{unknown} ?'?(backbone\.)?other\.weight"):
        check_weights(model, {**file, 'other.weight': torch.zeros(2)}, 'x.pth')


@pytest.mark.parametrize('library', ['timm', 'mmpretrain'])
def test_two_heads_of_a_distilled_network_become_one(library):
    both = randomised(heads.LeViTClsHead(5, in_channels=8))
    names = {'head.': 'head.', 'head_dist.': 'head.dist.'}
    file = {'stages.0.x': torch.zeros(1)}
    for key, value in both.state_dict().items():
        ours = next(
            new + key.removeprefix(old) for old, new in names.items() if key.startswith(old)
        )
        file[f'head.{key}' if library == 'mmpretrain' else ours] = value
    found = as_classifier(file)
    one = heads.LeViTClsHead(5, distillation=False, in_channels=8).eval()
    one.load_state_dict({k.removeprefix('head.'): v for k, v in found.items() if k[:4] == 'head'})
    x = torch.rand(3, 8)
    torch.testing.assert_close(one((x,)), both((x,)), rtol=1e-5, atol=1e-5)
    assert [key for key in found if key.startswith('backbone.')] == ['backbone.stages.0.x']


def test_part_of_a_file_in_an_official_layout(tmp_path):
    """``prefix`` of a ``Pretrained`` init_cfg."""
    model = randomised(classifier(nn.Identity())).backbone
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    file = {f'encoder_q.{to_official(key)}': value for key, value in expected.items()}
    file |= {'encoder_q.head.weight': torch.ones(2, 8), 'encoder_k.x.weight': torch.ones(1)}
    torch.save(file, tmp_path / 'x.pth')
    for value in model.parameters():
        nn.init.zeros_(value)
    model.load_pretrained(str(tmp_path / 'x.pth'), 'encoder_q')
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
