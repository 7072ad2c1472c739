"""Layouts of NAT and DiNAT: the authors' and Hugging Face transformers'."""

import re

from hybrid_mm.convert.core import LEAF, Source, StateDict, place_reductions, register, rename
from hybrid_mm.convert.huggingface import joined, register_huggingface

_OURS = r'stages.\1.blocks.\2.'
_BLOCK = r'levels\.(\d+)\.blocks\.(\d+)\.'
_RULES = [
    (rf'patch_embed\.proj\.0{LEAF}', r'stages.0.embed.conv1.\1'),
    (rf'patch_embed\.proj\.1{LEAF}', r'stages.0.embed.conv2.\1'),
    (rf'patch_embed\.norm{LEAF}', r'stages.0.embed.norm.\1'),
    (rf'{_BLOCK}(norm[12]|mlp\.fc[12]|attn\.qkv|attn\.proj){LEAF}', rf'{_OURS}\3.\4'),
    (rf'{_BLOCK}attn\.rpb', rf'{_OURS}attn.relative_bias'),
    (rf'{_BLOCK}(gamma[12])', rf'{_OURS}\3'),
    (r'levels\.(\d+)\.downsample\.reduction\.weight', r'next.\1.conv.weight'),
    (rf'levels\.(\d+)\.downsample\.norm{LEAF}', r'next.\1.norm.\2'),
    (rf'norm(\d){LEAF}', r'stages.\1.norm.\2'),
    (rf'norm{LEAF}', r'last.norm.\1'),
    (rf'head{LEAF}', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    return {'patch_embed.proj.0.weight', 'levels.0.blocks.0.attn.qkv.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    return place_reductions(rename(state, _RULES, 'nat'))


_ISOTROPIC = [
    (rf'patch_embed\.(proj|norm){LEAF}', r'stages.0.embed.\1.\2'),
    (
        rf'layers\.(\d+)\.(norm[12]|mlp\.fc[12]|attn\.qkv|attn\.proj){LEAF}',
        r'stages.0.blocks.\1.\2.\3',
    ),
    (r'layers\.(\d+)\.attn\.rpb', r'stages.0.blocks.\1.attn.relative_bias'),
    (rf'norm{LEAF}', r'stages.0.norm.\1'),
    (rf'head{LEAF}', r'head.\1'),
]
register(
    'nat-isotropic',
    Source(
        'isotropic NAT, DiNAT (SHI-Labs/Neighborhood-Attention-Transformer)',
        lambda keys: {'patch_embed.proj.weight', 'layers.0.attn.rpb'} <= keys,
        lambda state: rename(state, _ISOTROPIC, 'nat-isotropic'),
    ),
)

register(
    'nat',
    Source('NAT, DiNAT (SHI-Labs/Neighborhood-Attention-Transformer)', _matches, _convert),
)

_LAYER = r'encoder\.levels\.(\d+)\.layers\.(\d+)\.'
_PARTS = {
    'layernorm_before': 'norm1', 'layernorm_after': 'norm2',
    r'attention\.output\.dense': 'attn.proj', r'intermediate\.dense': 'mlp.fc1',
    r'output\.dense': 'mlp.fc2',
    r'attention\.self\.query': 'attn.q', r'attention\.self\.key': 'attn.k',
    r'attention\.self\.value': 'attn.v',
}  # fmt: skip
_HUGGING_FACE = [
    (rf'embeddings\.patch_embeddings\.projection\.0{LEAF}', r'stages.0.embed.conv1.\1'),
    (rf'embeddings\.patch_embeddings\.projection\.1{LEAF}', r'stages.0.embed.conv2.\1'),
    (rf'embeddings\.norm{LEAF}', r'stages.0.embed.norm.\1'),
    *((rf'{_LAYER}{old}{LEAF}', rf'{_OURS}{new}.\3') for old, new in _PARTS.items()),
    (rf'{_LAYER}attention\.self\.rpb', rf'{_OURS}attn.relative_bias'),
    (rf'{_LAYER}layer_scale_parameters', rf'{_OURS}gammas'),
    (r'encoder\.levels\.(\d+)\.downsample\.reduction\.weight', r'next.\1.conv.weight'),
    (rf'encoder\.levels\.(\d+)\.downsample\.norm{LEAF}', r'next.\1.norm.\2'),
    (rf'layernorm{LEAF}', r'last.norm.\1'),
    (rf'hidden_states_norms\.stage(\d+){LEAF}', r'norms.\1.\2'),
]


def _from_hugging_face(state: StateDict) -> StateDict:
    out: StateDict = {}
    for key, value in joined(place_reductions(state)).items():
        if key.endswith('.gammas'):
            base = key.removesuffix('gammas')
            out |= {f'{base}gamma1': value[0], f'{base}gamma2': value[1]}
        elif match := re.fullmatch(r'norms\.(\d+)\.(\w+)', key):
            out[f'stages.{int(match[1]) - 1}.norm.{match[2]}'] = value
        else:
            out[key] = value
    return out


register_huggingface(
    'nat-huggingface',
    'NAT, DiNAT (transformers; NAT up to 4.44)',
    'nat|dinat',
    _HUGGING_FACE,
    rf'{_LAYER}attention\.self\.query\.weight',
    _from_hugging_face,
)
