"""Checks of a checkpoint in the moment in which a runner loads it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hybrid_mm.engine.hooks.strict_loading import (
    SameClassesHook,
    StartingWeightsHook,
    StrictLoadingHook,
)
from hybrid_mm.errors import UserError


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


@pytest.mark.parametrize(('trained', 'ours', 'strict', 'lax'), [
    (('cat', 'dog'), ['cat', 'dog'], None, None),
    (('cat', 'dog'), ['dog', 'cat'], "error: 'cat' is 0 in the first and 1", "'cat' is 0 in"),
    (('cat', 'dog'), ['hen', 'cat'], "error: 'cat' is 0 in the first and 1", "'cat' is 0 in"),
    (('cat', 'dog'), ['cat', 'dot'], "label 1 is 'dog' in x.pth", "label 1 is 'dog' in x.pth"),
    (('cat', 'dog'), ['cat'], 'error: x.pth has 2 classes', None),
    (None, ['cat'], None, None),
    (('cat',), None, None, None),
])  # fmt: skip
def test_classes_are_compared_by_name(capsys, trained, ours, strict, lax):
    for hook, wanted in (
        (SameClassesHook('x.pth', 'test_dataloader'), strict),
        (SameClassesHook('x.pth', 'test_dataloader', strict=False), lax),
    ):
        if wanted and wanted.startswith('error: '):
            with pytest.raises(UserError, match=wanted.removeprefix('error: ')):
                hook.after_load_checkpoint(runner(ours), checkpoint(trained))
        else:
            hook.after_load_checkpoint(runner(ours), checkpoint(trained))
            err = capsys.readouterr().err
            assert err.count('warning: ') == bool(wanted) and (wanted or '') in err


def test_weights_are_handed_on_wherever_they_lie():
    weights = checkpoint()['state_dict']
    for content in (weights, dict(model=weights), dict(state_dict=weights)):
        content = dict(content)
        StrictLoadingHook('x.pth').after_load_checkpoint(runner(None), content)
        assert content['state_dict'].keys() == weights.keys()
        assert all(torch.equal(content['state_dict'][k], v) for k, v in weights.items())


def test_a_training_starts_from_any_container():
    weights = checkpoint()['state_dict']
    average = {f'module.{k}': v for k, v in weights.items()} | dict(steps=torch.tensor(1))
    for content in (
        weights,
        dict(model=weights),
        dict(state_dict=weights, meta=None),
        dict(state_dict=weights, ema_state_dict={}, meta=None),
        dict(ema_state_dict=average, meta=None),
        dict(teacher_model=weights, iteration=3),
    ):
        content, lines = dict(content), []
        run = runner(None)
        run.logger = SimpleNamespace(log=lambda *line, lines=lines: lines.append(line))
        StartingWeightsHook('x.pth').after_load_checkpoint(run, content)
        assert lines == [(20, 'load_from x.pth: 2 of 2 tensors of the model loaded')]
        assert all(torch.equal(content['state_dict'][k], v) for k, v in weights.items())
    content = dict(state_dict=dict(conv=torch.zeros(3)))
    with pytest.raises(UserError, match=r'x\.pth has nothing that fits this model \(Linear\)'):
        StartingWeightsHook('x.pth').after_load_checkpoint(runner(None), content)
