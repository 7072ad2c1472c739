"""Layouts of MViTv2: the official one, detectron2's, MMPretrain's and timm's.

Maps do without the class token that some classifiers have; it is named as a part of the head.
"""

import re

from hybrid_mm.convert.core import LEAF, Source, StateDict, place_reductions, register, rename
from hybrid_mm.convert.detectron2 import register_detectron2

_PARTS = [
    (rf'(norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12]){LEAF}', r'\3.\4'),
    (rf'(attn\.(?:pool|norm)_[qkv]){LEAF}', r'\3.\4'),
    (r'attn\.rel_pos_([hw])', r'attn.relative.rel_\3'),
    (rf'(?:proj|shortcut_proj_attn|shortcut_proj_mlp){LEAF}', r'proj.\3'),
]
_RULES = [
    (rf'patch_embed\.proj(?:ection)?{LEAF}', r'stages.0.embed.proj.\1'),
    *(
        (rf'stages\.(\d+)\.blocks\.(\d+)\.{old}', rf'stages.\1.blocks.\2.{new}')
        for old, new in _PARTS
    ),
    (rf'norm(\d){LEAF}', r'stages.\1.norm.\2'),
    (rf'norm{LEAF}', r'last.norm.\1'),
    (rf'head\.(?:projection|fc){LEAF}', r'head.\1'),
    (r'cls_token', r'head.class_token'),  # of those that ImageNet-21k trained
]


def _stages(state: StateDict) -> StateDict:
    """Number blocks within stages: a stage begins with the block whose attention widens the map.

    If the MLP widens it, the stage begins with the next block.
    """
    place: dict[str, str] = {}
    stage = block = 0
    while (key := f'blocks.{len(place)}.attn.qkv.weight') in state:
        index = len(place)
        rows, columns = state[key].shape
        if rows != 3 * columns and index:
            stage, block = stage + 1, 0
        place[str(index)] = f'stages.{stage}.blocks.{block}.'
        block += 1
        if len(state.get(f'blocks.{index}.mlp.fc2.bias', ())) > rows // 3:
            stage, block = stage + 1, 0

    def number(match: re.Match) -> str:
        return place.get(match[1], match[0])

    scale = {f'scale{i + 2}_norm.': f'norm{i}.' for i in range(stage + 1)}
    out = {}
    for key, value in state.items():
        key = re.sub(r'^blocks\.(\d+)\.', number, key)
        out[re.sub(r'^scale\d_norm\.', lambda match: scale.get(match[0], match[0]), key)] = value
    return out


def _convert(state: StateDict) -> StateDict:
    return place_reductions(rename(_stages(state), _RULES, 'mvitv2'))


def _matches(keys: set[str]) -> bool:
    first = {'blocks.0.attn.pool_q.weight', 'stages.0.blocks.0.attn.pool_q.weight'}
    embed = {'patch_embed.proj.weight', 'patch_embed.projection.weight'}
    return bool(keys & first and keys & embed)


register('mvitv2', Source('MViTv2 (facebookresearch/mvit), MMPretrain, timm', _matches, _convert))
register_detectron2('mvitv2-detectron2', 'MViTv2 of detectron2', 'bottom_up.', _matches, _convert)
