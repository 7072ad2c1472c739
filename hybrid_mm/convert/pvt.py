"""Layout of the official PVT checkpoints, and of PVT with ACmix named as in its other networks."""

from hybrid_mm.convert.core import Source, StateDict, count_from_zero, register, rename

_LEAF = r'\.(weight|bias)'
_BLOCK = r'block(\d)\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_RULES = [
    (rf'patch_embed(\d)\.(proj|norm){_LEAF}', r'stages.\1.embed.\2.\3'),
    (r'pos_embed(\d)', r'stages.\1.embed.position'),
    (rf'{_BLOCK}(norm[12]|mlp\.fc[12]|attn\.(?:q|kv|proj|norm)){_LEAF}', rf'{_OURS}\3.\4'),
    (rf'{_BLOCK}attn\.sr{_LEAF}', rf'{_OURS}attn.reduce.\3'),
    # the authors of ACmix published no PVT: these are the names in their other networks
    (rf'{_BLOCK}attn\.(rate[12])', rf'{_OURS}attn.\3'),
    (rf'{_BLOCK}attn\.(fc|dep_conv){_LEAF}', rf'{_OURS}attn.mix.\3.\4'),
    (r'cls_token', r'stages.4.embed.class_token'),
    (rf'norm{_LEAF}', r'stages.4.norm.\1'),
    (rf'head{_LEAF}', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    return {'pos_embed1', 'patch_embed1.proj.weight', 'block1.0.attn.kv.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    return count_from_zero(rename(state, _RULES, 'pvt'))


register('pvt', Source('PVT (whai362/PVT), version 1', _matches, _convert))
