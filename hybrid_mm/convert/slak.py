"""Layout of SLaK. PeLK has no official weights; we use the same names for it."""

from hybrid_mm.convert.core import BATCH_NORM, Source, StateDict, place_reductions, register, rename

_BLOCK = r'stages\.(\d+)\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
# the stripe convolutions have two names in the official code
_KERNELS = {
    r'(?:LoRA|Decom)1': 'tall',
    r'(?:LoRA|Decom)2': 'wide',
    'lkb_origin': 'large',
    'small_conv': 'small',
}
_RULES = [
    (rf'downsample_layers\.0\.0{BATCH_NORM}', r'stages.0.embed.conv.\1'),
    (rf'downsample_layers\.0\.1{BATCH_NORM}', r'stages.0.embed.norm.\1'),
    (rf'downsample_layers\.([1-9])\.0{BATCH_NORM}', r'stages.\1.downsample.norm.\2'),
    (rf'downsample_layers\.([1-9])\.1{BATCH_NORM}', r'stages.\1.downsample.conv.\2'),
    (rf'{_BLOCK}gamma', rf'{_OURS}gamma'),
    (rf'{_BLOCK}norm{BATCH_NORM}', rf'{_OURS}norm.\3'),
    (rf'{_BLOCK}pwconv([12]){BATCH_NORM}', rf'{_OURS}mlp.fc\3.\4'),
    *(
        (rf'{_BLOCK}large_kernel\.{theirs}\.{part}{BATCH_NORM}', rf'{_OURS}mixer.{ours}.{name}.\3')
        for theirs, ours in _KERNELS.items()
        for part, name in (('conv', 'conv'), ('bn', 'norm'))
    ),
    (rf'{_BLOCK}large_kernel\.lkb_reparam{BATCH_NORM}', rf'{_OURS}mixer.large.conv.\3'),
    (r'pos_embeds\.(\d+)', r'stages.\1.pos_embed'),
    (rf'norm(\d){BATCH_NORM}', r'stages.\1.norm.\2'),
    (rf'norm{BATCH_NORM}', r'last.norm.\1'),
    (rf'head{BATCH_NORM}', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    first = 'stages.0.0.large_kernel.'
    return 'downsample_layers.0.0.weight' in keys and any(k.startswith(first) for k in keys)


def _convert(state: StateDict) -> StateDict:
    return place_reductions(rename(state, _RULES, 'slak'))


register('slak', Source('SLaK (VITA-Group/SLaK), PeLK', _matches, _convert))
