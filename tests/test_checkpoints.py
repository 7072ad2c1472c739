"""Reading checkpoints, and refusing those of another model."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hybrid_mm.backbones import NAT
from hybrid_mm.checkpoint_files import MissingCheckpointError
from hybrid_mm.checkpoints import (
    CheckpointError,
    check_weights,
    inner_model,
    load_weights,
    read_checkpoint,
    weights_of,
)
from hybrid_mm.errors import UserError


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def checkpoint(classes=None):
    state = {k: torch.rand_like(v) for k, v in nn.Linear(2, 3).state_dict().items()}
    meta = dict(dataset_meta=dict(classes=classes)) if classes else None
    return dict(state_dict=state, meta=meta)


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


def test_safetensors(tmp_path):
    weights = checkpoint()['state_dict']
    path = tmp_path / 'x.safetensors'
    save_file(weights, path)
    found = read_checkpoint(str(path))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r'x\.safetensors \(\d+ bytes\) cannot be read'):
        read_checkpoint(str(path))


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(dict(a=torch.ones(1)), tmp_path / 'x.pth')
    assert read_checkpoint('~/x.pth').keys() == {'a'}
    with pytest.raises(MissingCheckpointError, match=rf'~/y\.pth does not exist; {tmp_path} has x'):
        read_checkpoint('~/y.pth')


def test_averaged_weights_are_named_once(capsys):
    saved = {'model': {'a': torch.ones(1)}, 'model_ema': {'a': torch.zeros(1)}}
    for _ in range(2):
        assert weights_of(saved, 'a file of two') == saved['model']
    assert capsys.readouterr().err == (
        "warning: checkpoint a file of two has averaged weights too: those of 'model' are taken; "
        'python tools/convert_checkpoint.py --key model_ema takes the others\n'
    )
    assert weights_of(saved, 'a third', 'model_ema') == saved['model_ema']
    # MMEngine's hooks know what to do with theirs
    weights_of({'state_dict': saved['model'], 'ema_state_dict': saved['model'], 'meta': {}}, 'b')
    assert capsys.readouterr().err == ''
    with pytest.raises(CheckpointError, match="a third cannot be used: there is no 'x' in it"):
        weights_of(saved, 'a third', 'x')


def test_files_of_other_networks_are_called_by_their_names(tmp_path):
    path = str(tmp_path / 'x.pth')
    arch = dict(embed_dim=8, depths=[1], heads=[1], mlp_ratio=2.0, layer_scale=None)
    model = NAT(arch, out_indices=(0,), init_cfg=dict(type='Pretrained', checkpoint=path))
    gate = 'block1.0.attn.spatial_gating_unit'
    names = [f'{gate}.{conv}.weight' for conv in ('conv0', 'conv_spatial', 'conv1')]
    names += ['patch_embed1.proj.weight', 'block1.0.mlp.dwconv.dwconv.weight']
    van = {name: torch.ones(1) for name in names}
    for state, expected in (
        (van, r'does not fit this NAT\. It is a checkpoint of .*VAN.*\(layout van\), and the mod'),
        ({'strange.a': torch.ones(1)}, r'NAT\. No layout that is known has such names: strange\.a'),
        (dict(list(model.state_dict().items())[1:]), r'1 missing: .*Check arch and the arguments'),
    ):
        torch.save(state, path)
        with pytest.raises(ValueError, match=expected):
            model.init_weights()
    torch.save(van, path)
    with pytest.raises(CheckpointError, match=r'not one of this model \(NAT\):\n  It is a checkp'):
        check_weights(model, read_checkpoint(path), path)
    torch.save({**van, 'block1.0.strange': torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r'x\.pth: van: do not know the key'):
        model.init_weights()


def test_backbone_in_the_place_of_a_whole_model():
    model = nn.ModuleDict(dict(backbone=nn.Linear(2, 2), neck=nn.Linear(2, 2)))
    for prefix in ('backbone.', ''):
        weights = {prefix + key: value for key, value in nn.Linear(2, 2).state_dict().items()}
        with pytest.raises(CheckpointError, match='weights of the backbone alone'):
            check_weights(model, dict(state_dict=weights), 'x.pth')
    with pytest.raises(CheckpointError) as caught:
        check_weights(model, dict(state_dict={'neck.weight': torch.ones(2, 2)}), 'x.pth')
    assert 'backbone alone' not in str(caught.value)
