"""ViT as google-research/vision_transformer and Big Vision save it: JAX arrays by path.

The papers' own files are ``.npz`` archives. Names are paths such as
``Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel`` (vision_transformer, ``models_vit.py``),
in Big Vision below ``params/`` and with other numbers of the modules within a block
(``models/vit.py``); there, blocks may be stacked in one (``encoderblock/``). Kernels have their
inputs first, convolutions (rows, columns, inputs, outputs), attention separate heads. The
activation is the GELU by tanh there; ours, as in all ports, the exact one. Big Vision gives its
class token no position, here zeros.
"""

import math
import re

import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, register, rename
from hybrid_mm.convert.huggingface import joined

_PREFIX = r'(?:opt/target/|params/)?'
_BLOCK = r'Transformer/encoderblock_(\d+)/'
_ATTENTION = rf'{_BLOCK}MultiHeadDotProductAttention_[01]/'
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
_LEAF = '/(kernel|scale|bias)'
_RULES = [
    (rf'embedding{_LEAF}', r'stem.proj.\1'),
    (r'(?:Transformer/(?:posembed_input/)?)?pos_embedding', r'stem.position'),
    (r'cls', r'stem.class_token'),
    (rf'{_BLOCK}LayerNorm_0{_LEAF}', r'blocks.\1.norm1.\2'),
    (rf'{_BLOCK}LayerNorm_[12]{_LEAF}', r'blocks.\1.norm2.\2'),
    (rf'{_ATTENTION}(q|k|v)[a-z]+{_LEAF}', r'blocks.\1.attn.\2.\3'),
    (rf'{_ATTENTION}out{_LEAF}', r'blocks.\1.attn.proj.\2'),
    (rf'{_BLOCK}MlpBlock_[03]/Dense_0{_LEAF}', r'blocks.\1.mlp.fc1.\2'),
    (rf'{_BLOCK}MlpBlock_[03]/Dense_1{_LEAF}', r'blocks.\1.mlp.fc2.\2'),
    (rf'Transformer/encoder_norm{_LEAF}', r'norm.\1'),
    (rf'head{_LEAF}', r'head.\1'),
    (rf'pre_logits{_LEAF}', r'head.pre_logits.\1'),
    (r'MAPHead_0/(.*)', r'head.MAPHead_0/\1'),  # attention that pools
]
_RULES = [(_PREFIX + pattern, replacement) for pattern, replacement in _RULES]
_STACKED = re.compile(rf'({_PREFIX}Transformer/encoderblock)(/.*)')


def _ours(key: str, value: Tensor) -> Tensor:
    """A JAX array in torch's order of dimensions."""
    if key.endswith('.bias'):
        return value.flatten()  # (heads, C / heads)
    if not key.endswith('.kernel'):
        return value
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1).contiguous()
    # the output of an attention has (heads, C / heads, C), the rest (C, heads, C / heads)
    value = value.flatten(0, 1) if '.attn.proj.' in key else value.flatten(1)
    return value.T.contiguous()


def _convert(state: StateDict) -> StateDict:
    flat: StateDict = {}
    for key, value in state.items():
        if match := _STACKED.fullmatch(key):
            flat |= {f'{match[1]}_{i}{match[2]}': block for i, block in enumerate(value)}
        else:
            flat[key] = value
    out = {}
    for key, value in rename(flat, _RULES, 'vit-google').items():
        name, _, leaf = key.rpartition('.')
        out[f'{name}.{_LEAVES.get(leaf, leaf)}'] = _ours(key, value)
    position = out.get('stem.position')
    if 'stem.class_token' in out and position is not None:
        entries = position.shape[1]
        if math.isqrt(entries - 1) ** 2 != entries - 1 and math.isqrt(entries) ** 2 == entries:
            out['stem.position'] = F.pad(position, (0, 0, 1, 0))
    return joined(out)


def _matches(keys: set[str]) -> bool:
    mark = re.compile(rf'{_PREFIX}Transformer/encoderblock(_0)?/MlpBlock_[03]/Dense_0/kernel')
    return any(map(mark.fullmatch, keys))


register(
    'vit-google', Source('ViT (google-research/vision_transformer, big_vision)', _matches, _convert)
)
