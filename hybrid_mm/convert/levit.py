"""Layouts of LeViT: the two of the authors, MMPretrain's, timm's and Hugging Face's."""

import math
import re

from hybrid_mm.convert.core import BATCH_NORM, LEAF, Source, StateDict, register, rename
from hybrid_mm.convert.huggingface import register_huggingface

_NORM = r'bn\.(\w+)'
_STEM = ('stem.', 'stages.0.downsample.', 'stages.1.downsample.', 'stages.2.downsample.')


def _stem(names: list[str], conv: str) -> list[tuple[str, str]]:
    return [
        rule
        for name, ours in zip(names, _STEM, strict=True)
        for rule in (
            (rf'{name}\.{conv}\.weight', rf'{ours}conv.conv.weight'),
            (rf'{name}\.{_NORM}', rf'{ours}conv.norm.\1'),
        )
    ]


def _layers(prefix: str, ours: str, parts: dict[str, str], linear: str) -> list[tuple[str, str]]:
    """Rules for layers with a norm; ``prefix`` has two groups."""
    return [
        rule
        for part, name in parts.items()
        for rule in (
            (rf'{prefix}{part}\.{linear}\.weight', rf'{ours}{name}.linear.weight'),
            (rf'{prefix}{part}\.{_NORM}', rf'{ours}{name}.norm.\3'),
        )
    ]


def _head(linear: str) -> list[tuple[str, str]]:
    return [
        (r'head\.bn\.(\w+)', r'head.bn.\1'),
        (rf'head\.{linear}\.(\w+)', r'head.linear.\1'),
        (r'head_dist\.bn\.(\w+)', r'head.dist.bn.\1'),
        (rf'head_dist\.{linear}\.(\w+)', r'head.dist.linear.\1'),
    ]


_BIASES = r'attention_biases'
_INDEX = r'attention_bias_idxs'
_FLAT = r'flat.\1.\2.'


def _flat_rules(block: str, wrapped: str, mlp: list[str], linear: str) -> list[tuple[str, str]]:
    """Rules for layouts with attention and feed-forward networks in one list."""
    attention = {'qkv': 'qkv', r'proj\.1': 'proj'}
    shrink = {r'q\.1': 'q', 'kv': 'kv', r'proj\.1': 'proj'}
    return [
        (rf'{block}{wrapped}{_BIASES}', rf'{_FLAT}attn.distance_bias'),
        (rf'{block}{_BIASES}', rf'{_FLAT}shrink.distance_bias'),
        *_layers(block + wrapped, f'{_FLAT}attn.', attention, linear),
        *_layers(
            block + wrapped, f'{_FLAT}mlp.', dict(zip(mlp, ('fc1', 'fc2'), strict=True)), linear
        ),
        *_layers(block, f'{_FLAT}shrink.', shrink, linear),
    ]


_STEM_NUMBERS = (0, 2, 4, 6)
_OFFICIAL = [
    *_stem([rf'patch_embed\.{i}' for i in _STEM_NUMBERS], 'c'),
    *_flat_rules(r'()blocks\.(\d+)\.', r'm\.', ['0', '2'], 'c'),
    *_head('l'),
]
_MMPRETRAIN = [
    *_stem([rf'patch_embed\.patch_embed\.{i}' for i in _STEM_NUMBERS], 'conv'),
    *_flat_rules(r'stages\.(\d+)\.(\d+)\.', r'block\.', ['linear1', 'linear2'], 'linear'),
]
_TIMM_BLOCK = r'stages\.(\d+)\.blocks\.(\d+)\.'
_TIMM_DOWN = r'stages\.(\d+)\.downsample()\.'
_TIMM_MLP = {'ln1': 'fc1', 'ln2': 'fc2'}
_TIMM = [
    *_stem([rf'stem\.conv{i}' for i in range(1, 5)], 'linear'),
    (rf'{_TIMM_BLOCK}attn\.{_BIASES}', r'from2.\1.blocks.\2.attn.distance_bias'),
    (rf'{_TIMM_DOWN}attn_downsample\.{_BIASES}', r'from2.\1.downsample.attn.distance_bias'),
    *_layers(rf'{_TIMM_BLOCK}attn\.', r'from2.\1.blocks.\2.attn.',
             {'qkv': 'qkv', r'proj\.ln': 'proj'}, 'linear'),
    *_layers(rf'{_TIMM_BLOCK}mlp\.', r'from2.\1.blocks.\2.mlp.', _TIMM_MLP, 'linear'),
    *_layers(rf'{_TIMM_DOWN}attn_downsample\.', r'from2.\1.downsample.attn.',
             {r'q\.ln': 'q', 'kv': 'kv', r'proj\.ln': 'proj'}, 'linear'),
    *_layers(rf'{_TIMM_DOWN}mlp\.', r'from2.\1.downsample.mlp.', _TIMM_MLP, 'linear'),
    *_head('linear'),
]  # fmt: skip


def _place(state: StateDict) -> StateDict:
    """Number stages and blocks of ``flat.STAGE.ENTRY.``, in the order of the entries."""
    found = {re.match(r'flat\.(\d*)\.(\d+)\.(\w+)\.', key) for key in state}
    entries = {(int(m[1] or 0), int(m[2]), m[3]): m[0] for m in found if m}
    places, stage, block = {}, 2, -1
    shrunk = False  # a feed-forward network after a shrinking attention belongs to it
    for entry in sorted(entries):
        if entry[2] == 'shrink':
            stage, block, shrunk = stage + 1, -1, True
            place = f'stages.{stage}.downsample.attn.'
        elif entry[2] == 'attn':
            block, shrunk = block + 1, False
            place = f'stages.{stage}.blocks.{block}.attn.'
        else:
            place = f'stages.{stage}.{"downsample" if shrunk else f"blocks.{block}"}.mlp.'
        places[entries[entry]] = place
    out = {}
    for key, value in state.items():
        match = re.match(r'flat\.\d*\.\d+\.\w+\.', key)
        out[places[match[0]] + key[match.end() :] if match else key] = value
    return out


def _shape(state: StateDict) -> StateDict:
    """Reshape biases to tables of row and column distance, 1 x 1 convolutions to linear layers."""
    out = {}
    for key, value in state.items():
        if key.endswith('.distance_bias') and value.ndim == 2:
            side = math.isqrt(value.shape[1])
            if side**2 != value.shape[1]:
                raise ValueError(f'levit: {key} of {tuple(value.shape)} is not of a square map')
            value = value.unflatten(1, (side, side))
        elif key.endswith('.linear.weight') and value.ndim == 4:
            value = value.flatten(1)
        out[key] = value
    return out


def _without_index(state: StateDict) -> StateDict:
    """Drop the index buffers of biases, which follow from the size of the map."""
    return {key: value for key, value in state.items() if not key.endswith(f'.{_INDEX}')}


def _convert_official(state: StateDict) -> StateDict:
    return _shape(_place(rename(_without_index(state), _OFFICIAL, 'levit')))


def _convert_mmpretrain(state: StateDict) -> StateDict:
    return _shape(_place(rename(_without_index(state), _MMPRETRAIN, 'levit-mmpretrain')))


def _convert_timm(state: StateDict) -> StateDict:
    state = rename(_without_index(state), _TIMM, 'levit-timm')
    return _shape(
        {
            re.sub(r'^from2\.(\d+)', lambda m: f'stages.{int(m[1]) + 2}', key): value
            for key, value in state.items()
        }
    )


register(
    'levit',
    Source(
        'LeViT (facebookresearch/LeViT: levit.py, levit_c.py)',
        lambda keys: {'patch_embed.0.c.weight', 'blocks.0.m.qkv.c.weight'} <= keys,
        _convert_official,
    ),
)
register(
    'levit-mmpretrain',
    Source(
        'LeViT (MMPretrain)',
        lambda keys: 'patch_embed.patch_embed.0.conv.weight' in keys,
        _convert_mmpretrain,
    ),
)
register(
    'levit-timm',
    Source(
        'LeViT (timm)',
        lambda keys: (
            {'stem.conv1.linear.weight', 'stages.0.blocks.0.attn.qkv.linear.weight'} <= keys
        ),
        _convert_timm,
    ),
)

_HF_LAYER = r'encoder\.stages\.(\d+)\.layers\.(\d+)\.'
_HF_PARTS = {
    r'module\.queries_keys_values': 'attn.qkv', r'module\.projection': 'attn.proj',
    r'module\.linear_up': 'mlp.fc1', r'module\.linear_down': 'mlp.fc2',
    'queries': 'shrink.q', 'keys_values': 'shrink.kv', 'projection': 'shrink.proj',
}  # fmt: skip
_HF_HEADS = {'classifier': 'head.', 'classifier_distill': 'head.dist.'}


def _finish_huggingface(state: StateDict) -> StateDict:
    return _shape(_place(state))


register_huggingface(
    'levit-huggingface',
    'LeViT (transformers), with and without teacher',
    'levit',
    [
        *(
            rule
            for number, ours in enumerate(_STEM, 1)
            for rule in (
                (
                    rf'patch_embeddings\.embedding_layer_{number}\.convolution\.weight',
                    rf'{ours}conv.conv.weight',
                ),
                (
                    rf'patch_embeddings\.embedding_layer_{number}\.batch_norm{BATCH_NORM}',
                    rf'{ours}conv.norm.\1',
                ),
            )
        ),
        (rf'{_HF_LAYER}module\.{_BIASES}', rf'{_FLAT}attn.distance_bias'),
        (rf'{_HF_LAYER}{_BIASES}', rf'{_FLAT}shrink.distance_bias'),
        *(
            rule
            for part, ours in _HF_PARTS.items()
            for rule in (
                (rf'{_HF_LAYER}{part}\.linear\.weight', rf'{_FLAT}{ours}.linear.weight'),
                (rf'{_HF_LAYER}{part}\.batch_norm{BATCH_NORM}', rf'{_FLAT}{ours}.norm.\3'),
            )
        ),
        *(
            rule
            for theirs, ours in _HF_HEADS.items()
            for rule in (
                (rf'{theirs}\.batch_norm{BATCH_NORM}', rf'{ours}bn.\1'),
                (rf'{theirs}\.linear{LEAF}', rf'{ours}linear.\1'),
            )
        ),
    ],
    rf'{_HF_LAYER}module\.queries_keys_values\.linear\.weight',
    _finish_huggingface,
    unused=rf'.*\.{_INDEX}',
)
