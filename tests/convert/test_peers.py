"""Weights of other libraries' networks: ours with them computes what theirs does.

``tools/dev/peer_cases.py`` writes the cases with the libraries themselves.
"""

import importlib.util
import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hybrid_mm.convert import SOURCES, convert, detect
from hybrid_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location('peer_cases', ROOT / 'tools/dev/peer_cases.py')
peers = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = peers  # where dataclasses look for it
SPEC.loader.exec_module(peers)

STORED = {
    f'{path.stem}-{number}': case | {'source': path.stem}
    for path in sorted(peers.FOLDER.glob('*.json'))
    for number, case in enumerate(json.loads(path.read_text()))
}


def save(state, path):
    """Write a file of the kind that its name tells."""
    if path.suffix == '.safetensors':
        save_file(state, path)
    elif path.suffix == '.npz':
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    else:
        torch.save(state, path)


def logits(features, head):
    """What a classifier gives, with the mean of two heads where it learned from a teacher."""
    x = features if features.ndim == 2 else features.mean((2, 3))
    if 'head.pre_logits.weight' in head:
        x = (x @ head['head.pre_logits.weight'].T + head['head.pre_logits.bias']).tanh()

    def one(prefix, x):
        if f'{prefix}bn.weight' in head:
            mean, var = head[f'{prefix}bn.running_mean'], head[f'{prefix}bn.running_var']
            x = (x - mean) / (var + 1e-5).sqrt() * head[f'{prefix}bn.weight']
            x, prefix = x + head[f'{prefix}bn.bias'], f'{prefix}linear.'
        return x @ head[f'{prefix}weight'].T + head[f'{prefix}bias']

    if not any('.dist.' in key for key in head):
        return one('head.', x)
    return (one('head.', x) + one('head.dist.', x)) / 2


def gelu(mlp, approximate, x):
    """An MLP whose activation is the GELU, exact ('none') or by tanh."""
    return mlp.fc2(torch.nn.functional.gelu(mlp.fc1(x), approximate=approximate))


def replay(case, folder):
    """Outputs of our network with the weights of a case, by way of a file."""
    state = peers.state_dict(case)
    path = folder / case['file']
    save(state, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = MODELS.build(dict(case['ours'], init_cfg=init_cfg)).double().eval()
    model.init_weights()
    for end, attributes in case['adjust'].items():
        found = [module for name, module in model.named_modules() if name.endswith(end)]
        assert found, end
        for module in found:
            for key, value in attributes.items():
                assert hasattr(module, key)
                setattr(module, key, value if key != 'forward' else partial(gelu, module, value))
    with torch.no_grad():
        outputs = list(model(peers.image(case)))
    if case['logits']:
        outputs = [logits(outputs[-1], {k: v for k, v in convert(state).items() if 'head.' in k})]
    return outputs


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', STORED)
def test_outputs(name, tmp_path):
    case = STORED[name]
    outputs = replay(case, tmp_path)
    assert [list(x.shape) for x in outputs] == [shape for shape, _ in case['outputs']]
    for output, (_, expected) in zip(outputs, case['outputs'], strict=True):
        found = torch.tensor(peers.places(output), dtype=torch.float64)
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', STORED)
def test_layout(name):
    """Its keys tell the layout, and a key that it does not have is an error."""
    case = STORED[name]
    state = peers.state_dict(case)
    for keys in (state, {f'backbone.{key}': value for key, value in state.items()}):
        assert detect(keys) == case['source']
    for strange in ('strange.weight', next(iter(state)).rpartition('.')[0] + '.strange'):
        with pytest.raises(ValueError, match=f'do not know the key .*{strange[-12:]}'):
            convert(state | {strange: torch.ones(1)}, case['source'])
    matching = [name for name, source in SOURCES.items() if source.matches(set(state))]
    assert matching == [case['source']]


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('source', peers.PEERS)
def test_stored_cases_are_those_of_the_library(source):
    """Where it is there, made anew by the library itself, and compared at all places."""
    stored = [case for case in STORED.values() if case['source'] == source]
    theirs = peers.PEERS[source]()
    assert len(stored) == len(theirs) > 0
    for case, peer in zip(stored, theirs, strict=True):
        if peer.missing():
            pytest.skip(peer.missing())
        again = peer.case()
        for key in ('ours', 'tensors', 'integers', 'logits', 'image', 'file', 'adjust'):
            assert again[key] == json.loads(json.dumps(case[key])), key
        assert [shape for shape, _ in again['outputs']] == [shape for shape, _ in case['outputs']]
        for (_, found), (_, values) in zip(again['outputs'], case['outputs'], strict=True):
            torch.testing.assert_close(torch.tensor(found), torch.tensor(values))


def tensors(source, **extra):
    """The first stored state dict of a source, with tensors of other shapes in addition."""
    case = next(case for case in STORED.values() if case['source'] == source)
    return peers.state_dict(case) | {k: torch.rand(shape) for k, shape in extra.items()}


@pytest.mark.parametrize(
    ('source', 'token'),
    [
        ('vit-huggingface', 'deit.embeddings.distillation_token'),
        ('vit-huggingface5', 'embeddings.distillation_token'),
        ('vit', 'dist_token'),  # of MMPretrain and timm
    ],
)
def test_distilled_networks_are_refused(source, token):
    state = tensors(source, **{token: (1, 1, 12), 'distillation_classifier.weight': (5, 12)})
    assert detect(state) == source
    with pytest.raises(
        ValueError, match=r'distilled DeiT, whose distillation token .*has no place for'
    ):
        convert(state)


@pytest.mark.parametrize(
    ('source', 'first', 'second'),
    [
        ('pvt-mmdet', r'layers\.(\d)\.1\.(\d)\.', 'layers.{}.1.{}.ffn.layers.4.weight'),
        ('pvt', '', 'block1.0.mlp.dwconv.dwconv.weight'),
    ],
)
def test_the_second_pvt_is_refused(source, first, second):
    """It has no positions, so that MMDetection's blocks count from 0, and a convolution more."""
    if source == 'pvt':
        state = {
            'patch_embed1.proj.weight': torch.ones(1),
            'block1.0.attn.kv.weight': torch.ones(1),
        }
    else:
        down = lambda m: f'layers.{m[1]}.1.{int(m[2]) - 1}.'  # noqa: E731
        state = {re.sub(first, down, key): v for key, v in tensors(source).items()}
        state = {key: v for key, v in state.items() if not key.endswith('pos_embed')}
    second = second.format(0, 0)
    state[second] = torch.rand(8, 1, 3, 3)
    assert detect(state) == source
    with pytest.raises(ValueError, match=rf'weights of PVTv2, .*\({re.escape(second)} belongs to'):
        convert(state)


def test_projections_come_together():
    state = tensors('vit-huggingface')
    del state['encoder.layer.1.attention.attention.key.weight']
    with pytest.raises(ValueError, match=r'blocks\.1\.attn\.q\.weight is there, but not .*\.k\.we'):
        convert(state)


@pytest.mark.parametrize('prefix', ['', 'model.', 'van.', 'model.van.'])
def test_prefixes_of_transformers(prefix):
    state = {f'{prefix}{key}': value for key, value in tensors('van-huggingface').items()}
    assert detect(state) == 'van-huggingface'
    assert convert(state).keys() == convert(tensors('van-huggingface')).keys()
    strange = f'{prefix}encoder.stages.0.gain'
    with pytest.raises(ValueError, match=f"do not know the key '{strange}'"):
        convert(state | {strange: torch.ones(1)})


def test_pooler_of_transformers_is_part_of_the_head():
    state = {f'vit.{key}': value for key, value in tensors('vit-huggingface').items()}
    state |= {'classifier.weight': torch.rand(5, 12), 'classifier.bias': torch.rand(5)}
    out = convert(state)
    assert torch.equal(out['head.pooler.weight'], state['vit.pooler.dense.weight'])
    assert torch.equal(out['head.weight'], state['classifier.weight'])
    assert [key for key in out if not key.startswith(('stem.', 'blocks.', 'norm.', 'head.'))] == []
