"""Layouts of ResNets in torchvision's names, and of the networks that the papers build on them."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, count_from_zero, register, rename

_BLOCK = r'layer(?P<stage>\d+)\.(?P<block>\d+)\.'
_OURS = r'stages.\g<stage>.blocks.\g<block>.'
_LEAF = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_TRUNK = [
    (r'conv1\.weight', r'stem.conv.weight'),
    (r'bn1\.' + _LEAF, r'stem.norm.\1'),
    (_BLOCK + r'conv(\d)\.weight', _OURS + r'conv\3.weight'),
    (_BLOCK + r'bn(\d)\.' + _LEAF, _OURS + r'norm\3.\4'),
    (_BLOCK + r'downsample\.0\.weight', _OURS + r'shortcut.conv.weight'),
    (_BLOCK + r'downsample\.1\.' + _LEAF, _OURS + r'shortcut.norm.\3'),
    (r'(?:head\.)?fc\.(weight|bias)', r'head.\1'),
]
# in a deformable convolution of MMCV; an operator may have one in it
_DEFORMABLE = {'conv_offset.weight', 'conv_offset.bias'}
_OPERATOR = re.compile(_BLOCK + r'(?P<conv>conv[12])\.(?P<name>.+)')


def register_resnet(
    name: str,
    description: str,
    operator: Mapping[str, str],
    stem: Mapping[str, str] | None = None,
    change: Callable[[str, Tensor], Tensor | None] | None = None,
    finish: Callable[[StateDict], StateDict] | None = None,
) -> None:
    """Register the layout of a ResNet whose 3x3 convolutions may be replaced by an operator.

    Such files are detected by the keys of the operator or of the stem.

    Args:
        name: Name of the source.
        description: Description of the source.
        operator: Pattern of a key within ``layerL.B.conv2.`` (``conv1.`` in basic blocks), a
            regular expression without groups, to our name within the operator.
        stem: Pattern of a key of another stem to our name, as for ``re.sub``.
        change: Called with our name and the tensor; returns the converted tensor, or None to drop
            it.
        finish: Called with the renamed state dict, to compute tensors from several ones.
    """
    inner, special = (re.compile('|'.join(part or ()) or r'(?!)') for part in (operator, stem))
    rules = [
        *((_BLOCK + r'(conv[12])\.' + old, _OURS + r'\3.' + new) for old, new in operator.items()),
        *(stem or {}).items(),
        *_TRUNK,
    ]

    def matches(keys: set[str]) -> bool:
        if 'layer1.0.bn1.weight' not in keys:
            return False
        if not operator and not stem:  # a plain ResNet has nothing else
            return all(any(re.fullmatch(old, key) for old, _ in rules) for key in keys)
        names = {m['name'] for m in map(_OPERATOR.fullmatch, keys) if m} - {'weight'}
        own = {name for name in names if inner.fullmatch(name)}
        if own and own <= _DEFORMABLE:
            return False
        return names == own and bool(own or any(map(special.fullmatch, keys))) == bool(operator)

    def convert(state: StateDict) -> StateDict:
        out = {}
        for key, value in count_from_zero(rename(state, rules, name)).items():
            changed = change(key, value) if change else value
            if changed is not None:
                out[key] = changed
        return finish(out) if finish else out

    register(name, Source(description, matches, convert))


register_resnet('torchvision-resnet', 'ResNet of torchvision, MMDetection, MMPretrain', {})

# there are no official files for the following two; the names are those of common
# re-implementations of the layers, within torchvision's ResNet
_PARTS = ('conv_out', 'qkv_conv', 'attn_out')
register_resnet(
    'aa-resnet',
    'ResNet with attention-augmented convolutions',
    {rf'{part}\.{leaf}': f'{part}.{leaf}' for part in _PARTS for leaf in ('weight', 'bias')}
    | {f'key_rel_{axis}': f'relative.rel_{axis}' for axis in 'hw'},
    # one table for all heads
    change=lambda key, value: value[None] if '.relative.' in key else value,
)
_PROJECTIONS = ('query_conv', 'key_conv', 'value_conv')
register_resnet(
    'sasa-resnet',
    'ResNet with stand-alone self-attention',
    {rf'{name}\.weight': f'{name}.weight' for name in _PROJECTIONS}
    | {name: name for name in ('rel_h', 'rel_w')},
    stem={
        r'stem\.attn\.((?:query|key)_conv\.weight)': r'stem.attn.\1',
        r'stem\.attn\.(value_conv\.\d+\.weight)': r'stem.attn.\1',
        r'stem\.attn\.(emb_(?:row|col|mix))': r'stem.attn.\1',
        r'stem\.bn\.(\w+)': r'stem.norm.\1',
    },
)
_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
_LESA_NORMS = {
    'bn_x': 'norm_local',
    'bn_qkv': 'norm_qkv',
    'bn_similarity': 'norm_logits',
    'bn_output': 'norm_context',
    r'reasoning\.2': 'norm_reason',
    r'projection\.1': 'norm_project',
}
register_resnet(
    'lesa',
    'ResNet with locally enhanced self-attention',
    {rf'{old}\.{leaf}': f'{new}.{leaf}' for old, new in _LESA_NORMS.items() for leaf in _NORM}
    | {rf'conv_offset\.{leaf}': f'conv_offset.{leaf}' for leaf in ('weight', 'bias')}
    | {
        rf'x_transform\.0\.conv_offset\.{leaf}': f'local.conv_offset.{leaf}'
        for leaf in ('weight', 'bias')
    }
    | {
        r'x_transform\.0\.weight': 'local.weight',
        r'x_transform\.1\.weight': 'mix.weight',
        r'qkv_transform\.weight': 'qkv.weight',
        r'reasoning\.1\.weight': 'reason.weight',
        r'projection\.0\.weight': 'project.weight',
        'rel_height': 'rel_h',
        'rel_width': 'rel_w',
        'relative': 'rel',
        'flatten_index': 'flatten_index',
    },
    # the index follows from the size of the map
    change=lambda key, value: None if key.endswith('.flatten_index') else value,
)
