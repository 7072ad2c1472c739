"""Layout of the official CvT checkpoints."""

from hybrid_mm.convert.core import Source, StateDict, place_reductions, register, rename

_LEAF = r'\.(\w+)'
_BLOCK = r'stage(\d+)\.blocks\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_RULES = [
    (rf'stage(\d+)\.patch_embed\.(proj|norm){_LEAF}', r'stages.\1.embed.\2.\3'),
    (r'stage(\d+)\.cls_token', r'stages.\1.embed.class_token'),
    (rf'{_BLOCK}(norm[12]|mlp\.fc[12]|attn\.proj){_LEAF}', rf'{_OURS}\3.\4'),
    (rf'{_BLOCK}attn\.proj_([qkv]){_LEAF}', rf'{_OURS}attn.\3.\4'),
    (rf'{_BLOCK}attn\.conv_proj_([qkv])\.conv{_LEAF}', rf'{_OURS}attn.conv_\3.conv.\4'),
    (rf'{_BLOCK}attn\.conv_proj_([qkv])\.bn{_LEAF}', rf'{_OURS}attn.conv_\3.norm.\4'),
    (rf'norm{_LEAF}', r'last.norm.\1'),
    (rf'head{_LEAF}', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    return {'stage0.patch_embed.proj.weight', 'stage0.blocks.0.attn.proj_q.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    return place_reductions(rename(state, _RULES, 'cvt'))


register('cvt', Source('CvT (microsoft/CvT)', _matches, _convert))
