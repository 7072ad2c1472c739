"""Layouts of HorNet: the official one and MMPretrain's."""

from hybrid_mm.convert.core import BATCH_NORM, Source, StateDict, place_reductions, register, rename

_BLOCK = r'stages\.(\d+)\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_RULES = [
    (rf'downsample_layers\.0\.0{BATCH_NORM}', r'stages.0.embed.conv.\1'),
    (rf'downsample_layers\.0\.1{BATCH_NORM}', r'stages.0.embed.norm.\1'),
    (rf'downsample_layers\.([1-9])\.0{BATCH_NORM}', r'stages.\1.downsample.norm.\2'),
    (rf'downsample_layers\.([1-9])\.1{BATCH_NORM}', r'stages.\1.downsample.conv.\2'),
    (rf'{_BLOCK}gamma([12])(?:\.weight)?', rf'{_OURS}gamma\3'),
    (rf'{_BLOCK}norm([12]){BATCH_NORM}', rf'{_OURS}norm\3.\4'),
    (rf'{_BLOCK}pwconv([12]){BATCH_NORM}', rf'{_OURS}mlp.fc\3.\4'),
    (rf'{_BLOCK}gnconv\.dwconv\.complex_weight', rf'{_OURS}mixer.dwconv.spectrum'),
    (rf'{_BLOCK}gnconv\.(proj_in|proj_out|dwconv){BATCH_NORM}', rf'{_OURS}mixer.\3.\4'),
    (rf'{_BLOCK}gnconv\.(?:pws|projs)\.(\d+){BATCH_NORM}', rf'{_OURS}mixer.gates.\3.\4'),
    (rf'{_BLOCK}gnconv\.dwconv\.dw{BATCH_NORM}', rf'{_OURS}mixer.dwconv.conv.\3'),
    (rf'{_BLOCK}gnconv\.dwconv\.pre_norm{BATCH_NORM}', rf'{_OURS}mixer.dwconv.norm1.\3'),
    (rf'{_BLOCK}gnconv\.dwconv\.post_norm{BATCH_NORM}', rf'{_OURS}mixer.dwconv.norm2.\3'),
    (rf'norm(\d){BATCH_NORM}', r'stages.\1.norm.\2'),
    (rf'norm{BATCH_NORM}', r'last.norm.\1'),
    (rf'head(?:\.fc)?{BATCH_NORM}', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    return {'downsample_layers.0.0.weight', 'stages.0.0.gnconv.proj_in.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    return place_reductions(rename(state, _RULES, 'hornet'))


register('hornet', Source('HorNet (raoyongming/HorNet), MMPretrain', _matches, _convert))
