"""MMSegmentation's ViT and MAE.

Its attention is torch's, with one matrix for queries, keys and values. Patches may have no bias,
and without ``qkv_bias`` its output has none: zeros take their place. MAE has a table of biases by
relative position in every block: rows by offset of query minus key, then one of the class token to
pixels, one of pixels to it and one of it to itself.
"""

import re

from hybrid_mm.convert.core import LEAF, Source, StateDict, register, rename

_RULES = [
    (rf'patch_embed\.projection{LEAF}', r'stem.proj.\1'),
    (r'pos_embed', r'stem.position'),
    (r'cls_token', r'stem.class_token'),
    (rf'ln_pre{LEAF}', r'stem.pre_norm.\1'),
    (rf'layers\.(\d+)\.ln([12]){LEAF}', r'blocks.\1.norm\2.\3'),
    (r'layers\.(\d+)\.attn\.attn\.in_proj_(weight|bias)', r'blocks.\1.attn.qkv.\2'),
    (rf'layers\.(\d+)\.attn\.attn\.out_proj{LEAF}', r'blocks.\1.attn.proj.\2'),
    (rf'layers\.(\d+)\.attn\.(qkv|proj){LEAF}', r'blocks.\1.attn.\2.\3'),
    (r'layers\.(\d+)\.attn\.relative\.(table|tokens)', r'blocks.\1.attn.relative.\2'),
    (r'layers\.(\d+)\.gamma_([12])', r'blocks.\1.gamma\2'),
    (rf'layers\.(\d+)\.ffn\.layers\.0\.0{LEAF}', r'blocks.\1.mlp.fc1.\2'),
    (rf'layers\.(\d+)\.ffn\.layers\.1{LEAF}', r'blocks.\1.mlp.fc2.\2'),
    (rf'ln1{LEAF}', r'norm.\1'),
]

_TABLE = '.attn.relative_position_bias_table'


def _convert(state: StateDict) -> StateDict:
    state = {k: v for k, v in state.items() if not k.endswith('.relative_position_index')}
    for key in [key for key in state if key.endswith(_TABLE)]:
        table, name = state.pop(key).t(), key.removesuffix('_position_bias_table')
        # ours are by key minus query, and a module knows rows and columns
        state[f'{name}.table'] = table[:, :-3].flip(1)
        state[f'{name}.tokens'] = table[:, -3:].contiguous()
    out = rename(state, _RULES, 'vit-mmseg')
    if 'stem.pre_norm.weight' not in out:
        weight = out['stem.proj.weight']
        out.setdefault('stem.proj.bias', weight.new_zeros(len(weight)))
    for key in [key for key in out if key.endswith('.attn.proj.weight')]:
        out.setdefault(key.replace('weight', 'bias'), out[key].new_zeros(len(out[key])))
    return out


_MARKS = re.compile(r'layers\.\d+\.attn\.(attn\.in_proj_weight|relative_position_bias_table)')


def _matches(keys: set[str]) -> bool:
    patches = 'patch_embed.projection.weight' in keys
    return patches and any(map(_MARKS.fullmatch, keys))


register('vit-mmseg', Source('ViT and MAE of MMSegmentation', _matches, _convert))
