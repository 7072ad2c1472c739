"""Layouts of HorNet: the official one and MMPretrain's."""

from hybrid_mm.convert.core import Source, StateDict, place_reductions, register, rename

_BLOCK = r'stages\.(\d+)\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_LEAF = r'\.(\w+)'
_RULES = [
    (rf'downsample_layers\.0\.0{_LEAF}', r'stages.0.embed.conv.\1'),
    (rf'downsample_layers\.0\.1{_LEAF}', r'stages.0.embed.norm.\1'),
    (rf'downsample_layers\.([1-9])\.0{_LEAF}', r'stages.\1.downsample.norm.\2'),
    (rf'downsample_layers\.([1-9])\.1{_LEAF}', r'stages.\1.downsample.conv.\2'),
    (rf'{_BLOCK}gamma([12])(?:\.weight)?', rf'{_OURS}gamma\3'),
    (rf'{_BLOCK}norm([12]){_LEAF}', rf'{_OURS}norm\3.\4'),
    (rf'{_BLOCK}pwconv([12]){_LEAF}', rf'{_OURS}mlp.fc\3.\4'),
    (rf'{_BLOCK}gnconv\.dwconv\.complex_weight', rf'{_OURS}mixer.dwconv.spectrum'),
    (rf'{_BLOCK}gnconv\.(proj_in|proj_out|dwconv){_LEAF}', rf'{_OURS}mixer.\3.\4'),
    (rf'{_BLOCK}gnconv\.(?:pws|projs)\.(\d+){_LEAF}', rf'{_OURS}mixer.gates.\3.\4'),
    (rf'{_BLOCK}gnconv\.dwconv\.dw{_LEAF}', rf'{_OURS}mixer.dwconv.conv.\3'),
    (rf'{_BLOCK}gnconv\.dwconv\.pre_norm{_LEAF}', rf'{_OURS}mixer.dwconv.norm1.\3'),
    (rf'{_BLOCK}gnconv\.dwconv\.post_norm{_LEAF}', rf'{_OURS}mixer.dwconv.norm2.\3'),
    (rf'norm(\d){_LEAF}', r'stages.\1.norm.\2'),
    (rf'norm{_LEAF}', r'last.norm.\1'),
    (rf'head(?:\.fc)?{_LEAF}', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    return {'downsample_layers.0.0.weight', 'stages.0.0.gnconv.proj_in.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    return place_reductions(rename(state, _RULES, 'hornet'))


register('hornet', Source('HorNet (raoyongming/HorNet), MMPretrain', _matches, _convert))
