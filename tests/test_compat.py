"""Workarounds of hybrid_mm.compat, with the breakage forced where this environment lacks it."""

import os
import sys
import types

import numpy as np
import pytest
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import MessageHub
from mmengine.runner.checkpoint import CheckpointLoader

from hybrid_mm.compat import workarounds


class RunsCode:
    """Unpickled without care, it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


class TakesAttribute:
    """Abuses the one use of getattr that a checkpoint needs."""

    def __reduce__(self):
        return getattr, (np.ndarray, 'tofile')


@pytest.fixture
def checkpoint(tmp_path):
    """A training checkpoint as MMEngine's runner writes it."""
    hub = MessageHub.get_instance('test_compat')
    hub.update_scalar('train/loss', 0.5)
    hub.update_scalar('train/loss', torch.tensor(0.25))
    hub.update_scalar('train/lr', np.float64(0.1))
    hub.update_info('iter', 3)
    hub.update_info('flags', np.array([True, False]))
    path = tmp_path / 'iter_3.pth'
    torch.save({'state_dict': {'w': torch.ones(2)}, 'message_hub': hub.state_dict()}, path)
    return path


@pytest.fixture
def local_loader():
    """Put MMEngine's loaders back after the test."""
    before = CheckpointLoader._schemes
    CheckpointLoader._schemes = dict(before)
    yield
    CheckpointLoader._schemes = before


def test_training_checkpoint_needs_the_workaround_and_loads_with_it(checkpoint):
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(checkpoint, weights_only=True)
    loaded = workarounds.load_from_local(str(checkpoint), map_location='cpu')
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == pytest.approx(0.375)
    assert loaded['message_hub']['log_scalars']['train/loss'].statistics('current') == 0.25
    assert torch.equal(loaded['state_dict']['w'], torch.ones(2))


def test_checkpoint_that_runs_code_is_refused(tmp_path):
    torch.save({'x': RunsCode(tmp_path / 'ran')}, tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=r'evil\.pth holds \S*system that could run code'):
        workarounds.load_from_local(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'ran').exists()
    torch.save({'x': TakesAttribute()}, tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=r'evil\.pth holds getattr that could run code'):
        workarounds.load_from_local(str(tmp_path / 'evil.pth'))


def test_missing_and_damaged_checkpoints_keep_their_own_errors(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        workarounds.load_from_local(str(tmp_path / 'nowhere.pth'))
    for content in (b'<html>', b'none', b'\x80\x04\x95', b'{"a": 1}'):
        (tmp_path / 'page.pth').write_bytes(content)
        with pytest.raises(RuntimeError, match=r'page\.pth is not a file of torch, or is damaged'):
            workarounds.load_from_local(str(tmp_path / 'page.pth'))
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=r'(?i)zip|archive'):
        workarounds.load_from_local(str(damaged))


def test_b1_registers_its_loaders(local_loader):
    assert workarounds.b1_weights_only()
    assert CheckpointLoader._schemes[''] is workarounds.load_from_local
    assert CheckpointLoader._schemes['https://'] is workarounds.load_from_http
    assert CheckpointLoader._schemes['hybrid_mm://'] is workarounds.load_from_hybrid_mm


def test_checkpoint_that_runs_code_is_refused_by_mmengine_and_loads_on_demand(
    tmp_path, monkeypatch, local_loader
):
    workarounds.b1_weights_only()
    path = tmp_path / 'evil.pth'
    torch.save({'x': RunsCode(tmp_path / 'ran')}, path)
    with pytest.raises(RuntimeError, match='TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'):
        CheckpointLoader.load_checkpoint(str(path))
    assert not (tmp_path / 'ran').exists()
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    CheckpointLoader.load_checkpoint(str(path))
    assert (tmp_path / 'ran').exists()


@pytest.fixture
def resnet(monkeypatch):
    """A module of the name of MMSegmentation's ResNet, with the method as it stands there."""

    class Bottleneck:
        double, more = staticmethod(lambda x: 2 * x), staticmethod(lambda x: x + 1)

        def forward_plugin(self, x, plugin_names):
            out = x
            for name in plugin_names:
                out = getattr(self, name)(x)
            return out

    name = 'mmseg.models.backbones.resnet'
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(Bottleneck=Bottleneck))
    return Bottleneck


@pytest.mark.parametrize('broken', [True, False])
def test_b16_plugins_see_what_the_one_before_gives(resnet, monkeypatch, broken):
    call = 'out = getattr(self, name)(x)' if broken else 'out = getattr(self, name)(out)'
    text = lambda module, path: call if module == 'mmseg' else ''  # noqa: E731
    monkeypatch.setattr(workarounds, 'read_text', text)
    assert resnet().forward_plugin(5, ['double', 'more']) == 6
    assert workarounds.b16_plugins_in_turn() == broken
    assert resnet().forward_plugin(5, ['double', 'more']) == (11 if broken else 6)
    assert resnet().forward_plugin(5, ['more', 'double']) == (12 if broken else 10)
    assert resnet().forward_plugin(5, []) == 5
    assert not workarounds.b16_plugins_in_turn()  # once is enough


def test_b16_waits_for_the_module(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmseg.models.backbones.resnet', raising=False)
    assert not workarounds.b16_plugins_in_turn()


def test_b6_names_the_module_only_where_the_distribution_is_absent(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    monkeypatch.delitem(MODULE2PACKAGE, 'hybrid_mm')
    monkeypatch.setattr(workarounds, 'is_installed', lambda name: name == 'mmsegmentation')
    assert not workarounds.b6_config_packages()
    assert MODULE2PACKAGE['mmseg'] == 'mmsegmentation'
    assert MODULE2PACKAGE['hybrid_mm'] == 'hybrid_mm'
    monkeypatch.setattr(workarounds, 'is_installed', lambda name: False)
    assert workarounds.b6_config_packages()
    assert MODULE2PACKAGE['mmseg'] == 'mmseg'


def test_inheriting_from_mmseg_works_after_import():
    from mmengine.config import Config

    text = "_base_ = 'mmseg::_base_/schedules/schedule_20k.py'"
    assert Config.fromstring(text, '.py').train_cfg.max_iters == 20000
