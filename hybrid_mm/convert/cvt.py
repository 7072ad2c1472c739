"""Layouts of CvT: the authors' and Hugging Face's."""

from hybrid_mm.convert.core import (
    BATCH_NORM,
    LEAF,
    Source,
    StateDict,
    place_reductions,
    register,
    rename,
)
from hybrid_mm.convert.huggingface import register_huggingface

_BLOCK = r'stage(\d+)\.blocks\.(\d+)\.'
_OURS = r'stages.\1.blocks.\2.'
_RULES = [
    (rf'stage(\d+)\.patch_embed\.(proj|norm){BATCH_NORM}', r'stages.\1.embed.\2.\3'),
    (r'stage(\d+)\.cls_token', r'stages.\1.embed.class_token'),
    (rf'{_BLOCK}(norm[12]|mlp\.fc[12]|attn\.proj){BATCH_NORM}', rf'{_OURS}\3.\4'),
    (rf'{_BLOCK}attn\.proj_([qkv]){BATCH_NORM}', rf'{_OURS}attn.\3.\4'),
    (rf'{_BLOCK}attn\.conv_proj_([qkv])\.conv{BATCH_NORM}', rf'{_OURS}attn.conv_\3.conv.\4'),
    (rf'{_BLOCK}attn\.conv_proj_([qkv])\.bn{BATCH_NORM}', rf'{_OURS}attn.conv_\3.norm.\4'),
    (rf'norm{BATCH_NORM}', r'last.norm.\1'),
    (rf'head{BATCH_NORM}', r'head.\1'),
]


def _matches(keys: set[str]) -> bool:
    return {'stage0.patch_embed.proj.weight', 'stage0.blocks.0.attn.proj_q.weight'} <= keys


def _convert(state: StateDict) -> StateDict:
    return place_reductions(rename(state, _RULES, 'cvt'))


register('cvt', Source('CvT (microsoft/CvT)', _matches, _convert))

_STAGE = r'encoder\.stages\.(\d+)\.'
_LAYER = _STAGE + r'layers\.(\d+)\.'
_PROJECTION = rf'{_LAYER}attention\.attention\.convolution_projection_([qkv])[a-z]+\.'
_PROJECTION += r'convolution_projection\.'
register_huggingface(
    'cvt-huggingface',
    'CvT (transformers, whose MLPs have the GELU where the authors and we have QuickGELU)',
    'cvt',
    [
        (
            rf'{_STAGE}embedding\.convolution_embeddings\.projection{LEAF}',
            r'stages.\1.embed.proj.\2',
        ),
        (
            rf'{_STAGE}embedding\.convolution_embeddings\.normalization{LEAF}',
            r'stages.\1.embed.norm.\2',
        ),
        (rf'{_STAGE}cls_token', r'stages.\1.embed.class_token'),
        (rf'{_LAYER}layernorm_before{LEAF}', rf'{_OURS}norm1.\3'),
        (rf'{_LAYER}layernorm_after{LEAF}', rf'{_OURS}norm2.\3'),
        (rf'{_PROJECTION}convolution\.weight', rf'{_OURS}attn.conv_\3.conv.weight'),
        (rf'{_PROJECTION}normalization{BATCH_NORM}', rf'{_OURS}attn.conv_\3.norm.\4'),
        (
            rf'{_LAYER}attention\.attention\.projection_([qkv])[a-z]+{LEAF}',
            rf'{_OURS}attn.\3.\4',
        ),
        (rf'{_LAYER}attention\.output\.dense{LEAF}', rf'{_OURS}attn.proj.\3'),
        (rf'{_LAYER}intermediate\.dense{LEAF}', rf'{_OURS}mlp.fc1.\3'),
        (rf'{_LAYER}output\.dense{LEAF}', rf'{_OURS}mlp.fc2.\3'),
        (rf'layernorm{LEAF}', r'last.norm.\1'),
    ],
    rf'{_STAGE}embedding\.convolution_embeddings\.projection\.weight',
    place_reductions,
)
