"""Layouts of MaxViT and CoAtNet in timm, the only source of weights in PyTorch.

MaxViT weights that are ported from TensorFlow have the queries of all heads first and a table of
three dimensions; timm's own networks have the queries, keys and values of each head together and a
flat table with offsets query minus key.
"""

from torch import Tensor

from hybrid_mm.convert.core import BATCH_NORM as LEAF
from hybrid_mm.convert.core import Source, StateDict, place_reductions, register, rename

_BLOCK = r'(stages\.\d+\.blocks\.\d+)\.'
_CONV = {
    r'(pre_norm|norm1|norm2)': r'\2',
    r'(conv[123])_(?:1x1|kxk)': r'\2',
    r'se(?:_early)?\.(fc[12])': r'gate.\2',
    r'(shortcut)\.expand': r'\2',
}
_ATTENTION = {
    r'(norm1|norm2)': r'\2',
    r'(mlp\.fc[12]|attn\.qkv|attn\.proj)': r'\2',
    r'attn\.rel_pos\.mlp\.(fc[12])': r'attn.relative_bias.\2',
}
_TABLE = r'attn\.rel_pos\.relative_position_bias_table'
_HEAD = [
    (rf'(?:head\.)?norm{LEAF}', r'last.norm.\1'),
    (rf'head\.pre_logits\.fc{LEAF}', r'head.pre_logits.\1'),
    (rf'head\.fc{LEAF}', r'head.\1'),
    (rf'stem\.(conv[12]|norm1){LEAF}', r'stem.\1.\2'),
]
_MAXVIT = [
    *((rf'{_BLOCK}conv\.{old}{LEAF}', rf'\1.conv.{new}.\3') for old, new in _CONV.items()),
    *(
        (rf'{_BLOCK}attn_{partition}\.{old}{LEAF}', rf'\1.{partition}.{new}.\3')
        for partition in ('block', 'grid')
        for old, new in _ATTENTION.items()
    ),
    (rf'{_BLOCK}attn_(block|grid)\.{_TABLE}', r'\1.\2.attn.relative_bias.table'),
    (rf'{_BLOCK}attn_(block|grid)\.ls([12])\.gamma', r'\1.\2.gamma\3'),
    *_HEAD,
]
_COATNET = [
    *((_BLOCK + old + LEAF, rf'\1.{new}.\3') for old, new in (_CONV | _ATTENTION).items()),
    (rf'{_BLOCK}norm1\.norm{LEAF}', r'\1.norm1.\2'),
    (rf'{_BLOCK}ls([12])\.gamma', r'\1.gamma\2'),
    (_BLOCK + _TABLE, r'\1.attn.relative_bias.table'),
    *_HEAD,
]


def queries_first(qkv: Tensor, heads: int) -> Tensor:
    """Reorder rows from (head, q|k|v, channel) to (q|k|v, head, channel)."""
    return qkv.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def _attention(state: StateDict) -> StateDict:
    """Convert attention in a renamed state dict to our order of rows, offsets and dimensions."""
    state = dict(state)
    for name in [key[: -len('qkv.weight')] for key in state if key.endswith('.attn.qkv.weight')]:
        block = name[: -len('attn.')]
        for part in ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2', 'shortcut'):
            key = f'{block}{part}.weight'
            if key in state:
                state[key] = state[key].flatten(1)  # of 1x1 convolutions
        table = name + 'relative_bias.table'
        flat = table in state and state[table].ndim == 2
        if not flat and table in state:
            continue
        if flat:
            # reversed, offsets are key minus query; the module knows rows and columns
            state[table] = state[table].t().flip(1)
        heads = len(state[table if flat else name + 'relative_bias.fc2.weight'])
        for leaf in ('weight', 'bias'):
            key = f'{name}qkv.{leaf}'
            state[key] = queries_first(state[key], heads)
    return state


def _source(name: str, rules: list[tuple[str, str]], first: str, description: str) -> None:
    def matches(keys: set[str]) -> bool:
        return {f'stages.0.blocks.0.{first}', 'stem.conv1.weight'} <= keys

    def convert(state: StateDict) -> StateDict:
        return place_reductions(_attention(rename(state, rules, name)))

    register(name, Source(description, matches, convert))


_source('maxvit', _MAXVIT, 'conv.conv1_1x1.weight', 'MaxViT of timm')
_source('coatnet', _COATNET, 'conv1_1x1.weight', 'CoAtNet of timm')
