"""Layouts of NAT and DiNAT: the authors' and Hugging Face's."""

import re

import pytest
import torch

from hybrid_mm.backbones import NAT, DiNATs
from hybrid_mm.convert import convert

ARCH = dict(embed_dim=8, depths=[1, 2], heads=[1, 2], mlp_ratio=2.0, layer_scale=0.1)


def drawn(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def official(model):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        swin = 'stages.0.embed.proj.weight' in model.state_dict()
        key = key.replace('stages.0.embed.conv1', 'patch_embed.proj.0')
        key = key.replace('stages.0.embed.conv2', 'patch_embed.proj.1')
        key = key.replace('stages.0.embed', 'patch_embed')
        key = re.sub(r'^stages\.(\d)\.norm', r'norm\1', key)
        key = key.replace('stages.1.downsample', 'stages.0.downsample')
        key = key.replace('downsample.conv', 'downsample.reduction')
        key = key.replace('relative_bias', 'rpb')
        state[key.replace('stages.', 'layers.' if swin else 'levels.')] = value
    return state


@pytest.mark.parametrize('source', ['nat', 'dinat_s'])
def test_round_trip(round_trip, source):
    arch = {key: ARCH[key] for key in ('embed_dim', 'depths', 'heads')}
    make = {
        'nat': lambda: NAT(ARCH, kernel_size=3, out_indices=(0, 1)),
        'dinat_s': lambda: DiNATs(arch, [[1], [2]], 3, out_indices=(0, 1)),
    }[source]
    round_trip(make, official, source, strange={'nat': 'levels.0.extra'}.get(source, 'layers.0.x'))


def test_official_classifier_into_a_dense_network(tmp_path):
    model = drawn(NAT(ARCH, kernel_size=3, out_indices=(1,)))
    state = {re.sub(r'^norm1', 'norm', k): v for k, v in official(model).items()}
    state |= {'head.weight': torch.ones(5, 16), 'head.bias': torch.ones(5)}
    torch.save(state, tmp_path / 'nat_cls.pth')
    dense = NAT(ARCH, kernel_size=3, out_indices=(0, 1))
    dense.load_pretrained(str(tmp_path / 'nat_cls.pth'))
    assert torch.equal(dense.stages[1].norm.weight, model.stages[1].norm.weight)


def hugging_face(model):
    """Weights under the names of transformers, written out independently."""
    names = [
        ('patch_embed.proj.', 'nat.embeddings.patch_embeddings.projection.'),
        ('patch_embed.norm', 'nat.embeddings.norm'),
        (r'^norm1', 'nat.layernorm'),
        (r'^levels\.(\d)\.blocks\.(\d)\.', r'nat.encoder.levels.\1.layers.\2.'),
        (r'^levels\.(\d)\.down', r'nat.encoder.levels.\1.down'),
        ('layers.(.).norm1', r'layers.\1.layernorm_before'),
        ('layers.(.).norm2', r'layers.\1.layernorm_after'),
        ('attn.rpb', 'attention.self.rpb'),
        ('attn.proj', 'attention.output.dense'),
        ('mlp.fc1', 'intermediate.dense'),
        ('mlp.fc2', 'output.dense'),
    ]
    state = {}
    for key, value in official(model).items():
        for old, new in names:
            key = re.sub(old, new, key)
        if '.attn.qkv.' in key:
            parts = zip(('query', 'key', 'value'), value.chunk(3), strict=True)
            state |= {key.replace('attn.qkv', f'attention.self.{n}'): v for n, v in parts}
        elif key.endswith('gamma1'):
            state[key.replace('gamma1', 'layer_scale_parameters')] = value[None]
        elif key.endswith('gamma2'):
            name = key.replace('gamma2', 'layer_scale_parameters')
            state[name] = torch.cat([state[name], value[None]])
        else:
            state[key] = value
    return state


def test_hugging_face(round_trip):
    make = lambda: NAT(ARCH, kernel_size=3, out_indices=(1,))  # noqa: E731
    strange = 'nat.encoder.levels.0.layers.0.gain'
    round_trip(make, hugging_face, 'nat-huggingface', strange=strange)


def test_maps_of_hugging_face(drawn):
    """As a backbone there, the maps have norms, counted from 1."""
    state = hugging_face(drawn(NAT(ARCH, kernel_size=3, out_indices=(1,))))
    theirs = 'hidden_states_norms.stage{}.{}'
    norms = {theirs.format(i, leaf): torch.rand(4) for i in (1, 2) for leaf in ('weight', 'bias')}
    out = convert({k: v for k, v in state.items() if 'nat.layernorm' not in k} | norms)
    for i in (1, 2):
        assert out[f'stages.{i - 1}.norm.weight'] is norms[theirs.format(i, 'weight')]
        assert out[f'stages.{i - 1}.norm.bias'] is norms[theirs.format(i, 'bias')]
