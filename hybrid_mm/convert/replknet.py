"""Layouts of RepLKNet: the official one, and MMPretrain's, which differs in a few names."""

from hybrid_mm.convert.core import BATCH_NORM as LEAF
from hybrid_mm.convert.core import Source, StateDict, place_reductions, register, rename

_BLOCK = r'stages\.(\d+)\.blocks\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_PARTS = (('conv', 'conv'), ('bn', 'norm'))
_RULES = [
    *((rf'stem\.(\d)\.{part}{LEAF}', rf'stem.\1.{ours}.\2') for part, ours in _PARTS),
    (rf'{_BLOCK}prelkb_bn{LEAF}', rf'{_OURS}norm.\3'),
    (rf'{_BLOCK}preffn_bn{LEAF}', rf'{_OURS}norm.\3'),
    *((rf'{_BLOCK}pw([12])\.{part}{LEAF}', rf'{_OURS}pw\3.{ours}.\4') for part, ours in _PARTS),
    *(
        (
            rf'{_BLOCK}large_kernel\.{theirs}\.{part}{LEAF}',
            rf'{_OURS}mixer.{kernel}.{ours}.\3',
        )
        for theirs, kernel in (('lkb_origin', 'large'), ('small_conv', 'small'))
        for part, ours in _PARTS
    ),
    (rf'{_BLOCK}large_kernel\.lkb_reparam{LEAF}', rf'{_OURS}mixer.large.conv.\3'),
    *(
        (rf'transitions\.(\d)\.([01])\.{part}{LEAF}', rf'next.\1.\2.{ours}.\3')
        for part, ours in _PARTS
    ),
    (rf'stages\.(\d+)\.norm{LEAF}', r'stages.\1.norm.\2'),
    (rf'norm{LEAF}', r'last.norm.\1'),
    (r'head\.(?:fc\.)?(weight|bias)', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    return {'stem.0.conv.weight', 'stages.0.blocks.0.prelkb_bn.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    out = {}
    for key, value in place_reductions(rename(state, _RULES, 'replknet')).items():
        parts = key.split('.')
        if 'pw1' in parts or 'pw2' in parts:
            # even blocks have the large kernels, odd ones the feed-forward networks
            names = ('proj_in', 'proj_out') if int(parts[3]) % 2 == 0 else ('fc1', 'fc2')
            parts[4] = names[int(parts[4][2]) - 1]
        out['.'.join(parts)] = value
    return out


register(
    'replknet', Source('RepLKNet (DingXiaoH/RepLKNet-pytorch, MMPretrain)', _matches, _convert)
)
