"""Layouts of PVT: the authors', MMDetection's, Hugging Face's, and with ACmix's names in addition.

Weights of PVTv2 are told apart and refused: it is another network (overlapping patches, a
convolution in the MLP, no positions).
"""

import re

import torch.nn.functional as F

from hybrid_mm.convert.core import LEAF, Source, StateDict, count_from_zero, register, rename
from hybrid_mm.convert.huggingface import joined, register_huggingface

_BLOCK = r'block(\d)\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_RULES = [
    (rf'patch_embed(\d)\.(proj|norm){LEAF}', r'stages.\1.embed.\2.\3'),
    (r'pos_embed(\d)', r'stages.\1.embed.position'),
    (rf'{_BLOCK}(norm[12]|mlp\.fc[12]|attn\.(?:q|kv|proj|norm)){LEAF}', rf'{_OURS}\3.\4'),
    (rf'{_BLOCK}attn\.sr{LEAF}', rf'{_OURS}attn.reduce.\3'),
    # the authors of ACmix published no PVT: these are the names in their other networks
    (rf'{_BLOCK}attn\.(rate[12])', rf'{_OURS}attn.\3'),
    (rf'{_BLOCK}attn\.(fc|dep_conv){LEAF}', rf'{_OURS}attn.mix.\3.\4'),
    (r'cls_token', r'stages.4.embed.class_token'),
    (rf'norm{LEAF}', r'stages.4.norm.\1'),
    (rf'head{LEAF}', r'head.\1'),
]


_SECOND = re.compile(r'.*\.dwconv\.dwconv\.weight|layers\.\d+\.1\.\d+\.ffn\.layers\.4\.weight')


def _only_first_version(keys: set[str]) -> None:
    """Check that weights are none of PVTv2.

    Raises:
        ValueError: They are.
    """
    key = min(filter(_SECOND.fullmatch, keys), default=None)
    if key is not None:
        raise ValueError(
            f'these are weights of PVTv2, or of a network after it ({key} belongs to a convolution '
            'within an MLP): PVT is version 1'
        )


def _matches(keys: set[str]) -> bool:
    return {'patch_embed1.proj.weight', 'block1.0.attn.kv.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    _only_first_version(set(state))
    return count_from_zero(rename(state, _RULES, 'pvt'))


register('pvt', Source('PVT (whai362/PVT), version 1', _matches, _convert))

_MMDET_BLOCK = r'layers\.(\d+)\.1\.(\d+)\.'
_MMDET = [
    (rf'layers\.(\d+)\.0\.projection{LEAF}', r'stages.\1.embed.proj.\2'),
    (rf'layers\.(\d+)\.0\.norm{LEAF}', r'stages.\1.embed.norm.\2'),
    (r'layers\.(\d+)\.1\.0\.pos_embed', r'stages.\1.embed.position'),
    (rf'{_MMDET_BLOCK}(norm[12]){LEAF}', rf'{_OURS}\3.\4'),
    (rf'{_MMDET_BLOCK}attn\.norm{LEAF}', rf'{_OURS}attn.norm.\3'),
    (rf'{_MMDET_BLOCK}attn\.sr{LEAF}', rf'{_OURS}attn.reduce.\3'),
    (rf'{_MMDET_BLOCK}attn\.attn\.in_proj_(weight|bias)', rf'{_OURS}attn.in.\3'),
    (rf'{_MMDET_BLOCK}attn\.attn\.out_proj{LEAF}', rf'{_OURS}attn.proj.\3'),
    (rf'{_MMDET_BLOCK}ffn\.layers\.0{LEAF}', rf'{_OURS}mlp.fc1.\3'),
    (rf'{_MMDET_BLOCK}ffn\.layers\.3{LEAF}', rf'{_OURS}mlp.fc2.\3'),
]


def _from_mmdet(state: StateDict) -> StateDict:
    """Convert MMDetection's.

    Its list of blocks begins with the positions, the projections of the attention are one matrix,
    and those of the MLP are convolutions. The last positions have no entry for a class token, which
    ours have without using it.
    """
    _only_first_version(set(state))
    renamed = rename(state, _MMDET, 'pvt-mmdet')
    last = max(int(key.split('.')[1]) for key in renamed)
    out: StateDict = {}
    for key, value in renamed.items():
        if match := re.fullmatch(r'(.*\.blocks\.)(\d+)(\..*)', key):
            key = f'{match[1]}{int(match[2]) - 1}{match[3]}'
        if '.attn.in.' in key:
            channels = len(value) // 3
            out[key.replace('.in.', '.q.')] = value[:channels]
            out[key.replace('.in.', '.kv.')] = value[channels:]
            continue
        if '.mlp.' in key and value.ndim == 4:
            value = value.flatten(1)
        elif key == f'stages.{last}.embed.position':
            value = F.pad(value, (0, 0, 1, 0))
        out[key] = value
    for key in [key for key in out if key.endswith('.attn.proj.weight')]:  # qkv_bias=False
        out.setdefault(key.replace('weight', 'bias'), out[key].new_zeros(len(out[key])))
    return out


register(
    'pvt-mmdet',
    Source(
        "PVT (MMDetection; its norms of patches have an epsilon of 1e-6, the authors' and ours "
        'of 1e-5)',
        lambda keys: (
            {'layers.0.0.projection.weight', 'layers.0.1.1.attn.attn.in_proj_weight'} <= keys
            or {'layers.0.0.projection.weight', 'layers.0.1.0.attn.attn.in_proj_weight'} <= keys
        ),
        _from_mmdet,
    ),
)

_EMBED = r'encoder\.patch_embeddings\.(\d+)\.'
_LAYER = r'encoder\.block\.(\d+)\.(\d+)\.'


def _from_huggingface(state: StateDict) -> StateDict:
    last = max(int(key.split('.')[1]) for key in state if key.startswith('stages.'))
    state = {re.sub(r'^last\.', f'stages.{last}.', key): value for key, value in state.items()}
    return joined(state, 'kv')


register_huggingface(
    'pvt-huggingface',
    "PVT (transformers; its norms of patches and keys have an epsilon of 1e-6, the authors' and "
    'ours of 1e-5)',
    'pvt',
    [
        (rf'{_EMBED}position_embeddings', r'stages.\1.embed.position'),
        (rf'{_EMBED}cls_token', r'stages.\1.embed.class_token'),
        (rf'{_EMBED}projection{LEAF}', r'stages.\1.embed.proj.\2'),
        (rf'{_EMBED}layer_norm{LEAF}', r'stages.\1.embed.norm.\2'),
        (rf'{_LAYER}layer_norm_([12]){LEAF}', rf'{_OURS}norm\3.\4'),
        (rf'{_LAYER}attention\.self\.(q|k|v)[a-z]+{LEAF}', rf'{_OURS}attn.\3.\4'),
        (rf'{_LAYER}attention\.self\.sequence_reduction{LEAF}', rf'{_OURS}attn.reduce.\3'),
        (rf'{_LAYER}attention\.self\.layer_norm{LEAF}', rf'{_OURS}attn.norm.\3'),
        (rf'{_LAYER}attention\.output\.dense{LEAF}', rf'{_OURS}attn.proj.\3'),
        (rf'{_LAYER}mlp\.dense([12]){LEAF}', rf'{_OURS}mlp.fc\3.\4'),
        (rf'encoder\.layer_norm{LEAF}', r'last.norm.\1'),
    ],
    rf'{_LAYER}attention\.self\.query\.weight',
    _from_huggingface,
)
