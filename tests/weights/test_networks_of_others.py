"""Weights of networks that are not ours come in the names that those networks read."""

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from hybrid_mm.weights import loading, registry

STATE = {
    'patch_embed.proj.weight': torch.rand(4, 3, 4, 4),
    'layers.0.blocks.0.attn.relative_position_bias_table': torch.rand(9, 1),
    'layers.0.blocks.0.attn.qkv.weight': torch.rand(12, 4),
}


@pytest.mark.parametrize('own', [False, True])
def test_swin_of_mmdetection(own, tmp_path, monkeypatch):
    path = tmp_path / 'swin-base_in21k.pth'
    torch.save({'model': STATE}, path)
    weights = registry.find_weights('swin-base_in21k')
    published = None if own else weights.files[0]
    monkeypatch.setattr(loading, 'weights_file', lambda name: (path, published))
    found = CheckpointLoader.load_checkpoint('hybrid_mm://swin-base_in21k', 'cpu')
    assert found['state_dict'].keys() == STATE.keys()
    # others are converted: what is not theirs is an error
    monkeypatch.setattr(
        loading,
        'weights_file',
        lambda name: (path, None if own else registry.find_weights('van-b0_in1k').files[0]),
    )
    if own:
        found = CheckpointLoader.load_checkpoint('hybrid_mm://van-b0_in1k', 'cpu')
        assert 'stages.0.embed.proj.weight' in found['state_dict']
    else:
        with pytest.raises(ValueError, match='van-mmpretrain: do not know the key'):
            CheckpointLoader.load_checkpoint('hybrid_mm://van-b0_in1k', 'cpu')
