"""Weights that a config names by an address or by a name, on a machine without a network."""

import socket

import pytest
import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.registry import MODELS

from hybrid_mm.checkpoint_files import CheckpointError, load_from_http
from hybrid_mm.checkpoints import read_checkpoint


@pytest.fixture
def address(tmp_path, monkeypatch):
    """An address at which nobody listens; the cache is empty."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'cache'))
    for prefix in ('http://', 'https://'):  # others may have replaced them
        monkeypatch.setitem(CheckpointLoader._schemes, prefix, load_from_http)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{probe.getsockname()[1]}/net.pth'


def network(checkpoint):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    arch = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    return MODELS.build(dict(type='mmpretrain.ConvNeXt', arch=arch, init_cfg=init_cfg))


def test_address(address):
    """Of a network of another library: which address, why, and what to do."""
    for load in (network(address).init_weights, lambda: read_checkpoint(address)):
        with pytest.raises(CheckpointError) as caught:
            load()
        text = str(caught.value)
        assert text.startswith(f'checkpoint {address} cannot be downloaded (')
        assert 'refused' in text and text.count(address) == 1
        assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in text


@pytest.mark.parametrize('scheme', ['open-mmlab', 'torchvision'])
def test_name(address, monkeypatch, scheme):
    for models in ('get_external_models', 'get_torchvision_models'):
        monkeypatch.setattr(mmengine_checkpoint, models, lambda: dict(net=address))
    with pytest.raises(CheckpointError, match=f'checkpoint {address} cannot be downloaded'):
        network(f'{scheme}://net').init_weights()


def test_a_file_in_place_of_an_address(tmp_path):
    path = str(tmp_path / 'net.pth')
    weights = {key: torch.ones_like(value) for key, value in network(path).state_dict().items()}
    torch.save(weights, path)
    net = network(path)
    net.init_weights()
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
