"""Layouts of Swin Transformers: the authors', MMDetection's, and those with other operators.

detectron2's Swin has the authors' names; its detectors become those of MMDetection's
``SwinTransformer``, the network of our configs.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hybrid_mm.convert.core import LEAF, Source, StateDict, place_reductions, register, rename
from hybrid_mm.convert.detectron2 import register_detectron2

_TABLE = 'relative_position_bias_table'
_DERIVED = 'relative_position_index|attn_mask|relative_coords_table|relative_id'
_ELSA = {
    'ghost_head': 'ghost_head',
    'rb': 'rb',
    rf'(pre_proj|post_proj){LEAF}': r'\3.\4',
    rf'attn\.0{LEAF}': r'conv.\3',
    rf'attn\.2{LEAF}': r'to_weights.\3',
}
_MIX = {r'(rate[12])': r'\3', rf'(fc|dep_conv){LEAF}': r'mix.\3.\4'}


def _rules(stages: str, attn: str, names: Mapping[str, str], operator: Mapping[str, str]) -> list:
    block = rf'{stages}\.(\d+)\.blocks\.(\d+)\.'
    ours = r'stages.\1.blocks.\2.'
    return [
        (rf'patch_embed\.{names["proj"]}{LEAF}', r'stages.0.embed.proj.\1'),
        (rf'patch_embed\.norm{LEAF}', r'stages.0.embed.norm.\1'),
        (rf'{block}(norm[12]){LEAF}', rf'{ours}\3.\4'),
        (rf'{block}{names["fc1"]}{LEAF}', rf'{ours}mlp.fc1.\3'),
        (rf'{block}{names["fc2"]}{LEAF}', rf'{ours}mlp.fc2.\3'),
        (rf'{block}{attn}(qkv|proj){LEAF}', rf'{ours}attn.\3.\4'),
        (rf'{block}{attn}{_TABLE}', rf'{ours}attn.relative_bias'),
        *((rf'{block}{attn}{old}', rf'{ours}attn.{new}') for old, new in operator.items()),
        (rf'{stages}\.(\d+)\.downsample\.(norm|reduction){LEAF}', r'next.\1.\2.\3'),
        (rf'norm(\d){LEAF}', r'stages.\1.norm.\2'),
        (rf'norm{LEAF}', r'last.norm.\1'),
        (r'head\.(?:fc\.)?(weight|bias)', r'head.\1'),
    ]


def _table(table: Tensor) -> Tensor:
    """Reshape (offsets, heads), query minus key, to (heads, rows, columns), key minus query."""
    side = round(len(table) ** 0.5)
    return table.unflatten(0, (side, side)).flip(0, 1).permute(2, 0, 1).contiguous()


def _unfolded(weight: Tensor) -> Tensor:
    """Reorder the inputs of patch merging from (channel, row, column) to (column, row, channel)."""
    return weight.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)


def _folded(weight: Tensor) -> Tensor:
    """Undo :func:`_unfolded`."""
    return weight.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)


def _reductions_after(state: StateDict) -> StateDict:
    """Number reductions by the stage before them; those of timm are in the stage that they begin.

    There the last stage has one, and the first has none.
    """
    numbers = [{int(m[1]) for m in map(re.compile(rf'{part}\.(\d+)\.').match, state) if m}
               for part in ('stages', 'next')]  # fmt: skip
    if not numbers[1] or max(numbers[0]) not in numbers[1]:
        return state
    return {
        re.sub(r'^next\.(\d+)', lambda m: f'next.{int(m[1]) - 1}', key): value
        for key, value in state.items()
    }


_MMDETECTION = [
    (rf'patch_embed\.proj{LEAF}', r'patch_embed.projection.\1'),
    (rf'(patch_embed\.norm|norm\d){LEAF}', r'\1.\2'),
    (rf'layers(\.\d+\.blocks\.\d+\.norm[12]){LEAF}', r'stages\1.\2'),
    (rf'layers(\.\d+\.blocks\.\d+\.attn\.)(qkv|proj){LEAF}', r'stages\1w_msa.\2.\3'),
    (
        rf'layers(\.\d+\.blocks\.\d+\.attn\.)({_TABLE}|relative_position_index)',
        r'stages\1w_msa.\2',
    ),
    (rf'layers(\.\d+\.blocks\.\d+\.)mlp\.fc1{LEAF}', r'stages\1ffn.layers.0.0.\2'),
    (rf'layers(\.\d+\.blocks\.\d+\.)mlp\.fc2{LEAF}', r'stages\1ffn.layers.1.\2'),
    (rf'layers(\.\d+\.downsample\.)(norm|reduction){LEAF}', r'stages\1\2.\3'),
]


def _to_mmdetection(state: StateDict) -> StateDict:
    """Convert the authors' layout to that of MMDetection's ``SwinTransformer``."""
    out = rename(state, _MMDETECTION, 'Swin')
    return {key: _folded(v) if '.downsample.' in key else v for key, v in out.items()}


def _elsa(state: StateDict) -> StateDict:
    """Convert ELSA: squeeze ghost heads, and rename window attention, identified by ``rb``.

    The offsets of ``rb`` are key minus query, as ours; the rows of its projection are v, q, k.
    """
    out = {}
    for key, value in state.items():
        parent, _, name = key.partition('.attn.')
        if name == 'ghost_head' and value.ndim == 5:
            value = value.squeeze(1)
        if f'{parent}.attn.rb' in state:
            part, _, leaf = name.partition('.')
            if part == 'rb':
                side = round(value.shape[1] ** 0.5)
                part, value = 'relative_bias', value.unflatten(1, (side, side))
            elif part == 'pre_proj':
                v, q, k = value.chunk(3)
                part, value = 'qkv', torch.cat([q, k, v])
            elif part == 'post_proj':
                part = 'proj'
            key = '.'.join(filter(None, (parent, 'attn', part, leaf)))
        out[key] = value
    return out


def register_swin(
    name: str,
    description: str,
    operator: Mapping[str, str] | None = None,
    *,
    mark: str | None = None,
    openmmlab: bool = False,
    finish: Callable[[StateDict], StateDict] | None = None,
) -> None:
    """Register the layout of a Swin Transformer.

    Args:
        name: Name of the source.
        description: Description of the source.
        operator: Patterns of keys within ``attn.``, besides those of window attention, to our names
            there, as for ``re.sub``; groups count from 3.
        mark: Pattern of a key within ``attn.`` that identifies such files. If None, all keys must
            be those of Swin.
        openmmlab: Use MMDetection's names instead of the authors'.
        finish: Converts the renamed state dict to ours.
    """
    if openmmlab:
        names = dict(proj='projection', fc1=r'ffn\.layers\.0\.0', fc2=r'ffn\.layers\.1')
        stages, attn = 'stages', r'attn\.w_msa\.'
    else:
        names = dict(proj='proj', fc1=r'mlp\.fc1', fc2=r'mlp\.fc2')
        stages, attn = 'layers', r'attn\.'
    rules = _rules(stages, attn, names, operator or {})
    ignored = re.compile(
        r'.*\.(relative_position_index|attn_mask|relative_coords_table|relative_id)'
    )
    table = re.compile(rf'{stages}\.0\.blocks\.0\.{attn}{_TABLE}')
    marked = mark and re.compile(rf'{stages}\.\d+\.blocks\.\d+\.{attn}{mark}')

    def matches(keys: set[str]) -> bool:
        keys = {key for key in keys if not ignored.fullmatch(key)}
        if marked:
            return any(map(marked.fullmatch, keys))
        if not any(map(table.fullmatch, keys)):
            return False
        return all(any(re.fullmatch(old, key) for old, _ in rules) for key in keys)

    def convert(state: StateDict) -> StateDict:
        kept = {key: value for key, value in state.items() if not ignored.fullmatch(key)}
        out = place_reductions(_reductions_after(rename(kept, rules, name)))
        for key, value in out.items():
            if key.endswith('.relative_bias') and value.ndim == 2:
                out[key] = _table(value)
            elif openmmlab and '.downsample.' in key:
                out[key] = _unfolded(value)
        return finish(out) if finish else out

    register(name, Source(description, matches, convert))


register_swin('swin', 'Swin Transformer (microsoft/Swin-Transformer, timm)')
register_swin('swin-openmmlab', 'Swin Transformer of MMDetection, MMPretrain', openmmlab=True)
register_swin('dinat_s', 'DiNAT_s', {'rpb': 'relative_bias'}, mark='rpb')
register_swin('acmix-swin', 'Swin with ACmix (LeapLabTHU/ACmix)', _MIX, mark='dep_conv.weight')
register_swin(
    'elsa-swin',
    'ELSA-Swin (damo-cv/ELSA)',
    _ELSA,
    mark=r'(ghost_head|rb|attn\.2\.weight)',
    finish=_elsa,
)
register_detectron2(
    'swin-detectron2',
    'Swin Transformer of detectron2, to MMDetection',
    'bottom_up.',
    lambda keys: f'layers.0.blocks.0.attn.{_TABLE}' in keys,
    _to_mmdetection,
)
# the names are those of `swin`: they do not tell that MMDetection's network is meant
register(
    'swin-mmdetection',
    Source(
        "Swin Transformer of the authors' detectors (Swin-Transformer-Object-Detection), to "
        'MMDetection; has to be named',
        lambda keys: False,
        _to_mmdetection,
    ),
)
