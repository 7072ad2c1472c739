"""Layout of the official SAN checkpoints, and of SAN with ACmix."""

import re

from hybrid_mm.convert.core import Source, StateDict, register, rename

_LEAF = r'\.(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)'
_STAGE = r'(?P<stage>\d)'
_BLOCK = rf'layer{_STAGE}\.(?P<block>\d+)\.'
_OURS = r'\g<stage>.blocks.\g<block>.'
_OPERATOR = {
    'conv1': 'query_conv',
    'conv2': 'key_conv',
    'conv3': 'value_conv',
    'conv_p': 'position',
    r'conv_w\.0': 'norm1',
    r'conv_w\.2': 'conv1',
    r'conv_w\.3': 'norm2',
    r'conv_w\.5': 'conv2',
    # the authors of ACmix published no SAN: these are the names in their other networks
    'fc': 'mix.fc',
    'dep_conv': 'mix.dep_conv',
}
_RULES = [
    *(
        (_BLOCK + rf'sam\.{old}' + _LEAF, _OURS + rf'attn.{new}.\g<leaf>')
        for old, new in _OPERATOR.items()
    ),
    (_BLOCK + r'sam\.(?P<leaf>rate[12])', _OURS + r'attn.\g<leaf>'),
    (_BLOCK + r'bn(?P<n>[12])' + _LEAF, _OURS + r'norm\g<n>.\g<leaf>'),
    (_BLOCK + 'conv' + _LEAF, _OURS + r'conv.\g<leaf>'),
    (r'conv_in' + _LEAF, r'stem.conv.\g<leaf>'),
    (r'bn_in' + _LEAF, r'stem.norm.\g<leaf>'),
    (rf'conv{_STAGE}' + _LEAF, r'\g<stage>.downsample.\g<leaf>'),
    (rf'bn{_STAGE}' + _LEAF, r'\g<stage>.norm.\g<leaf>'),
    (r'fc' + _LEAF, r'head.\g<leaf>'),
]


def _matches(keys: set[str]) -> bool:
    return any(re.fullmatch(_BLOCK + r'sam\.conv_w\.5\.weight', key) for key in keys)


def _convert(state: StateDict) -> StateDict:
    """Convert SAN; its stage 0, at stride 2, is part of our stem."""

    def stage(match: re.Match) -> str:
        number = int(match[1])
        return f'stages.{number - 1}.' if number else 'stem.stage.'

    renamed = rename(state, _RULES, 'san')
    return {re.sub(r'^(\d+)\.', stage, key): value for key, value in renamed.items()}


register('san', Source('SAN (hszhao/SAN), pairwise and patchwise', _matches, _convert))
