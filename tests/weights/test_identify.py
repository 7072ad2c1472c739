"""What a file of weights is said to be."""

import argparse
import hashlib
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hybrid_mm import backbones
from hybrid_mm.checkpoints import CheckpointError
from hybrid_mm.weights import identify as room
from hybrid_mm.weights.identify import describe, identify
from hybrid_mm.weights.registry import PublishedFile, Weights

FEW = {
    backbones.VAN: ('b0', 'b1'),
    backbones.NAT: ('mini', 'tiny'),
    backbones.DiNAT: ('tiny',),
    backbones.ViT: ('base',),
    backbones.LeViT: ('256',),
}
MMPRETRAIN = [
    ('VAN', dict(arch='tiny'), 'van-mmpretrain', 'VAN', 'b0', False),
    ('HorNet', dict(arch='small-gf'), 'hornet', 'HorNet', 'small-gf', False),
    ('MViT', dict(arch='tiny'), 'mvitv2', 'MViTv2', 'tiny', False),
    ('LeViT', dict(arch='256'), 'levit-mmpretrain', 'LeViT', '256', False),
    ('RepLKNet', dict(arch='31B'), 'replknet', 'RepLKNet', '31b', False),
    ('VisionTransformer', dict(arch='b', img_size=384), 'vit', 'ViT', 'base', True),
]


def spread(state, dtype=torch.float32):
    """Tensors of the same shapes that have one number each, so that files are small."""
    return {
        k: torch.ones((), dtype=dtype if v.is_floating_point() else v.dtype).expand(v.shape)
        for k, v in state.items()
    }


@pytest.fixture
def few(monkeypatch):
    """Compare with a few of our networks only."""
    for network, variants in FEW.items():
        zoo = {name: network.arch_zoo[name] for name in variants}
        monkeypatch.setattr(network, 'arch_zoo', zoo)
    found = {c: room._patterns(room._model(c, arch[0]).state_dict()) for c, arch in FEW.items()}
    monkeypatch.setattr(room, '_networks', lambda: found)


@pytest.fixture
def saved(tmp_path):
    def save(content, name='x.pth'):
        path = tmp_path / name
        torch.save(content, path)
        return path

    return save


def peer(name, arguments, monkeypatch):
    """Weights of a classifier of MMPretrain."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.models import backbones as theirs

    rates = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *a, **k: rates(*a, **{**k, 'device': 'cpu'}))
    with torch.device('meta'):
        state = getattr(theirs, name)(**arguments).state_dict()
    head = {'head.fc.weight': torch.ones(1000, 4), 'head.fc.bias': torch.ones(1000)}
    return {f'backbone.{key}': value for key, value in spread(state).items()} | head


def check_peer(case, saved, monkeypatch):
    name, arguments, source, network, arch, resized = case
    found = identify(saved(dict(state_dict=peer(name, arguments, monkeypatch), meta={})))
    assert (found.source, found.kind, found.problem) == (source, 'classifier', '')
    assert found.classes == {'head.fc': 1000} and found.dtypes[0] == 'float32'
    fits = [(fit.network, fit.arch, fit.resized, fit.differences) for fit in found.fits]
    assert (network, arch, resized, ()) in fits


@pytest.mark.parametrize('case', [MMPRETRAIN[3], MMPRETRAIN[5]], ids=lambda case: case[0])
def test_layouts_of_others(case, few, saved, monkeypatch):
    check_peer(case, saved, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize('case', MMPRETRAIN, ids=lambda case: case[0])
def test_layouts_of_others_among_all_networks(case, saved, monkeypatch):
    check_peer(case, saved, monkeypatch)


@pytest.mark.slow
def test_every_variant_of_every_network(saved):
    for network in room._networks():
        for arch in network.arch_zoo:
            state = spread(room._model(network, arch).state_dict())
            found = identify(saved(state))
            assert found.source == 'ours' and found.kind == 'backbone', (network, arch)
            assert (network.__name__, arch) in [(f.network, f.arch) for f in found.fits]
            assert not any(fit.differences or fit.resized for fit in found.fits)


def test_our_layout(few, saved):
    state = spread(room._model(backbones.NAT, 'tiny').state_dict(), torch.bfloat16)
    found = identify(saved(dict(epoch=7, model=state, optimizer=dict(state={}), model_ema=state)))
    # both have these tensors
    assert {str(fit) for fit in found.fits} == {"NAT(arch='tiny')", "DiNAT(arch='tiny')"}
    assert found.key == 'model' and found.dtypes == ('bfloat16',)
    assert found.numbers == sum(v.numel() for v in state.values()) and found.tensors == len(state)
    assert (
        found.others == dict(epoch='7', optimizer='1 entries', model_ema='averaged weights')
        and not found.published
    )
    # a classifier has no norms of maps in the middle, and one of the last
    less = {k: v for k, v in state.items() if not re.match(r'stages\.[012]\.norm\.', k)}
    assert len(less) == len(state) - 6
    assert identify(saved(less)).fits == found.fits
    # a network of other arguments is near, half of one is none
    changed = identify(saved({**state, 'stages.0.blocks.0.gamma1': torch.ones(64)})).fits
    assert len(changed) == 1 and changed[0].differences == (
        '1 unexpected: stages.0.blocks.0.gamma1',
    )
    assert "', nearest: 1 unexpected" not in describe(saved(state))
    half = {k: v for k, v in state.items() if not k.startswith(('stages.2', 'stages.3'))}
    assert identify(saved(half)).fits == () and identify(saved(half)).source is None


def test_whole_models(few, saved):
    state = spread(room._model(backbones.VAN, 'b0').state_dict())
    inner = {f'backbone.{key}': value for key, value in state.items()}
    conv_seg = {'decode_head.conv_seg.weight': torch.ones(150, 4, 1, 1)}
    boxes = {
        'neck.lateral_convs.0.conv.bias': torch.ones(2),
        'rpn_head.rpn_cls.weight': torch.ones(3),
        'roi_head.bbox_head.fc_cls.weight': torch.ones(81, 4),
    }
    for more, kind, classes in (
        (conv_seg, 'segmenter', {'decode_head.conv_seg': 150}),
        (boxes, 'detector', {'roi_head.bbox_head.fc_cls': 80}),
        ({'head.fc.weight': torch.ones(10, 4)}, 'classifier', {'head.fc': 10}),
        ({}, 'backbone', {}),
    ):
        found = identify(saved(dict(state_dict=inner | more)))
        assert (found.kind, found.classes, found.source) == (kind, classes, 'ours')
        assert [str(fit) for fit in found.fits] == ["VAN(arch='b0')"]
        assert found.parts['backbone'] == len(inner)
        assert sum(found.parts.values()) == len(inner) + len(more)
    text = describe(saved(dict(state_dict=inner | boxes)))
    assert 'detector: backbone and neck (1 tensors), rpn_head (1' in ' '.join(text.split())


def test_published_files(few, saved, monkeypatch):
    gate = 'block1.0.attn.spatial_gating_unit'
    names = [f'{gate}.{conv}.weight' for conv in ('conv0', 'conv_spatial', 'conv1')]
    names += ['patch_embed1.proj.weight', 'block1.0.mlp.dwconv.dwconv.weight']
    path = saved(dict(state_dict={'w': torch.ones(1)}, ema=dict.fromkeys(names, torch.ones(1))))
    data = path.read_bytes()
    digests = hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()

    def entry(weights, **of_file):
        file = PublishedFile(**{'name': 'x.pth', 'layout': 'van', 'source': 's', **of_file})
        return {weights: Weights(weights, 'van', (file,))}

    def listed(**of_file):
        monkeypatch.setattr(room, 'all_weights', lambda: entry('van-x_in1k', **of_file))
        return identify(path)

    # the registry says where the weights are
    for hashes in (dict(sha256=digests[0][:8].upper()), dict(md5=digests[1]),
                   dict(sha256=digests[0], md5=digests[1])):  # fmt: skip
        found = listed(key='ema', name='other.pth', **hashes)
        assert found.published == ('van-x_in1k',) and found.source == 'van' and found.key == 'ema'
        assert 'hybrid_mm://van-x_in1k, by its hash' in describe(path)
    for hashes in (dict(sha256='0' * 8), dict(sha256=digests[0], md5='0' * 32)):
        found = listed(**hashes)
        assert (found.published, found.alike) == ((), {'van-x_in1k': True})
        assert 'with another hash: changed or damaged' in describe(path)
    assert listed().alike == {'van-x_in1k': False}
    assert 'whose hash is not known' in describe(path)
    assert listed(name='y.pth').alike == {}


def test_settings_in_a_file(few, saved):
    state = {
        'pos_embed': torch.ones(1, 1 + 14 * 14, 4),
        'patch_embed.proj.weight': torch.ones(4, 3, 16, 16),
    }
    assert identify(saved(state)).image_size == (224, 224)
    assert identify(saved({**state, 'pos_embed': torch.ones(1, 150, 4)})).image_size is None
    for args, size in (
        (argparse.Namespace(input_size=192), (192, 192)),
        (dict(img_size=[3, 224, 160]), (224, 160)),
        (argparse.Namespace(lr=1), None),
    ):
        found = identify(saved(dict(model={'w': torch.ones(1)}, args=args, note='a' * 99)))
        assert found.image_size == size and found.others['note'] == 'str'


def test_formats(few, tmp_path):
    array = {'w': np.ones(2, np.float16)}
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps({'model': array, '__author__': 'X'}))
    np.savez(tmp_path / 'b.npz', **array)
    save_file({'w': torch.ones(2)}, tmp_path / 'c.bin')
    for name, kind in (('a.pkl', 'pickle'), ('b.npz', 'npz'), ('c.bin', 'safetensors')):
        found = identify(tmp_path / name)
        assert (found.format, found.tensors, found.numbers, found.source) == (kind, 1, 2, None)
    text = describe(tmp_path / 'a.pkl')
    assert 'as detectron2 writes it, 2' not in text and "weights under 'model'" in text
    assert 'layout     none that is known has such names: w, ...' in text
    assert 'known are ' in text and '__author__ (X)' in text
    (tmp_path / 'page').write_text('<html>')
    with pytest.raises(CheckpointError, match='a web page'):
        identify(tmp_path / 'page')
    torch.save({'epoch': 3}, tmp_path / 'none.pth')
    with pytest.raises(CheckpointError, match='no weights found'):
        identify(tmp_path / 'none.pth')


def test_names_that_a_layout_does_not_have(few, saved):
    gate = 'block1.0.attn.spatial_gating_unit'
    names = [f'{gate}.{conv}.weight' for conv in ('conv0', 'conv_spatial', 'conv1')]
    names += ['patch_embed1.proj.weight', 'block1.0.mlp.dwconv.dwconv.weight', 'strange.weight']
    path = saved(dict.fromkeys(names, torch.ones(1)))
    found = identify(path)
    assert found.source == 'van' and "do not know the key 'strange.weight'" in found.problem
    assert found.fits == () and 'problem    van: do not know the key' in describe(path)
