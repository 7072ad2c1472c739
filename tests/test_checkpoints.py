"""Reading checkpoints, and telling those of another model or of other classes."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from hybrid_mm.checkpoints import check_weights, inner_model, load_weights, read_checkpoint
from hybrid_mm.engine.hooks.strict_loading import StrictLoadingHook
from hybrid_mm.errors import UserError
from hybrid_mm.run.config import without_init_cfg


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def runner(classes):
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=classes and dict(classes=classes)))
    return SimpleNamespace(model=Wrapper(nn.Linear(2, 3)), test_dataloader=loader)


def checkpoint(classes=None):
    state = {k: torch.rand_like(v) for k, v in nn.Linear(2, 3).state_dict().items()}
    meta = dict(dataset_meta=dict(classes=classes)) if classes else None
    return dict(state_dict=state, meta=meta)


@pytest.mark.parametrize(('trained', 'ours', 'warns'), [
    (('cat', 'dog'), ['cat', 'dog'], False),
    (('cat', 'dog'), ['dog', 'cat'], True),
    (('cat', 'dog'), ['cat', 'dot'], True),
    (('cat', 'dog'), ['cat'], True),
    (None, ['cat'], False),
    (('cat',), None, False),
])  # fmt: skip
def test_classes_are_compared_by_name(capsys, trained, ours, warns):
    StrictLoadingHook('x.pth').after_load_checkpoint(runner(ours), checkpoint(trained))
    err = capsys.readouterr().err
    if warns:
        assert err == (
            f'warning: the classes of x.pth ({", ".join(trained)}) are not those of the data set '
            f'({", ".join(ours)})\n'
        )
    else:
        assert err == ''


def test_weights_are_handed_on_wherever_they_lie():
    weights = checkpoint()['state_dict']
    for content in (weights, dict(model=weights), dict(state_dict=weights)):
        content = dict(content)
        StrictLoadingHook('x.pth').after_load_checkpoint(runner(None), content)
        assert content['state_dict'].keys() == weights.keys()
        assert all(torch.equal(content['state_dict'][k], v) for k, v in weights.items())


def test_wrappers_are_taken_off_to_the_last():
    layer = nn.Linear(2, 3)
    assert inner_model(layer) is layer
    assert inner_model(Wrapper(layer)) is layer
    assert inner_model(Wrapper(Wrapper(Wrapper(layer)))) is layer
    layer.module = 'a name, not a network'
    assert inner_model(Wrapper(layer)) is layer


def test_weights_that_do_not_fit():
    weights = checkpoint()['state_dict']
    wrong = dict(weights, weight=torch.zeros(3, 1), other=torch.zeros(1))
    del wrong['bias']
    with pytest.raises(UserError) as caught:
        check_weights(Wrapper(nn.Linear(2, 3)), wrong, 'x.pth')
    text = str(caught.value)
    assert 'x.pth is not one of this model (Linear)' in text
    assert 'missing: bias' in text and 'unexpected: other' in text
    assert 'of another shape: weight' in text
    # as many numbers in another shape do not fit either
    with pytest.raises(UserError, match='of another shape: weight'):
        check_weights(nn.Linear(2, 3), dict(weights, weight=torch.zeros(2, 3)), 'x.pth')


def test_loading_changes_all_weights_of_a_wrapped_model():
    model, weights = Wrapper(Wrapper(nn.Linear(2, 3))), checkpoint()['state_dict']
    load_weights(model, dict(state_dict={f'module.{k}': v for k, v in weights.items()}), 'x.pth')
    assert all(torch.equal(v, weights[k]) for k, v in model.module.module.state_dict().items())


def test_missing_files_and_what_lies_beside(tmp_path):
    with pytest.raises(UserError, match=r'nothing/x\.pth does not exist$'):
        read_checkpoint(str(tmp_path / 'nothing' / 'x.pth'))
    for i in range(8):
        torch.save({}, tmp_path / f'epoch_{i}.pth')
    with pytest.raises(UserError) as caught:
        read_checkpoint(str(tmp_path / 'x.pth'))
    names = ', '.join(f'epoch_{i}.pth' for i in range(6))
    assert str(caught.value).endswith(f'does not exist; {tmp_path} has {names}, ...')


def test_init_cfg_is_taken_out_at_any_depth():
    init = dict(type='Pretrained', checkpoint='x.pth')
    spec = ConfigDict(
        type='A',
        init_cfg=init,
        backbone=dict(depth=5, init_cfg=None, stages=(1, 2)),
        heads=[dict(type='B', init_cfg=[init], loss=dict(init_cfg=init, weight=2.0)), 3],
        pair=(dict(init_cfg=init), 'init_cfg'),
    )
    found = without_init_cfg(spec)
    assert type(found) is ConfigDict
    assert found == dict(
        type='A',
        backbone=dict(depth=5, stages=(1, 2)),
        heads=[dict(type='B', loss=dict(weight=2.0)), 3],
        pair=({}, 'init_cfg'),
    )
    assert spec.heads[0].init_cfg == [init]
