"""Plain vision transformers of Hugging Face's transformers: ViT, ViT-MAE, DeiT, VitDet.

ViT, ViT-MAE and DeiT have epsilons of 1e-12 there by default, ours are 1e-6 as in the code of the
papers: with ``norm_eps=1e-12`` they agree. Decoder and mask token are left out.
"""

from hybrid_mm.convert.core import LEAF, StateDict
from hybrid_mm.convert.huggingface import joined, register_huggingface
from hybrid_mm.convert.vit import no_distillation

_LAYER = r'encoder\.layer\.(\d+)\.'
_RULES = [
    (rf'embeddings\.patch_embeddings\.projection{LEAF}', r'stem.proj.\1'),
    (r'embeddings\.position_embeddings', r'stem.position'),
    (r'embeddings\.cls_token', r'stem.class_token'),
    (rf'layernorm{LEAF}', r'norm.\1'),
    (rf'pooler\.dense{LEAF}', r'head.pooler.\1'),
]
# transformers up to 4, and the files that it publishes
_LAYERS = [
    (rf'{_LAYER}attention\.attention\.([qkv])[a-z]+{LEAF}', r'blocks.\1.attn.\2.\3'),
    (rf'{_LAYER}attention\.output\.dense{LEAF}', r'blocks.\1.attn.proj.\2'),
    (rf'{_LAYER}intermediate\.dense{LEAF}', r'blocks.\1.mlp.fc1.\2'),
    (rf'{_LAYER}output\.dense{LEAF}', r'blocks.\1.mlp.fc2.\2'),
    (rf'{_LAYER}layernorm_before{LEAF}', r'blocks.\1.norm1.\2'),
    (rf'{_LAYER}layernorm_after{LEAF}', r'blocks.\1.norm2.\2'),
]
_LAYERS_OF_5 = [
    (rf'layers\.(\d+)\.attention\.([qkv])_proj{LEAF}', r'blocks.\1.attn.\2.\3'),
    (rf'layers\.(\d+)\.attention\.o_proj{LEAF}', r'blocks.\1.attn.proj.\2'),
    (rf'layers\.(\d+)\.mlp\.fc([12]){LEAF}', r'blocks.\1.mlp.fc\2.\3'),
    (rf'layers\.(\d+)\.layernorm_before{LEAF}', r'blocks.\1.norm1.\2'),
    (rf'layers\.(\d+)\.layernorm_after{LEAF}', r'blocks.\1.norm2.\2'),
]


def _finish(state: StateDict) -> StateDict:
    no_distillation(state)
    return joined(state)


_DISTILLATION = [
    (r'embeddings\.distillation_token', r'stem.dist_token'),
    (rf'(cls|distillation)_classifier{LEAF}', r'head.\1.\2'),
]
_FORMS = (
    (
        'vit-huggingface',
        'ViT, ViT-MAE (transformers; its maps are those with norm_eps=1e-12)',
        _LAYERS,
        rf'{_LAYER}attention\.attention\.query\.weight',
    ),
    (
        'vit-huggingface5',
        'ViT, ViT-MAE (networks in memory of transformers from 5 on)',
        _LAYERS_OF_5,
        r'layers\.\d+\.attention\.q_proj\.weight',
    ),
)
for _name, _description, _layers, _mark in _FORMS:
    register_huggingface(
        _name,
        _description,
        'vit|deit',
        [*_RULES, *_layers, *_DISTILLATION],
        _mark,
        _finish,
        unused=r'decoder\..*|embeddings\.mask_token',
    )

register_huggingface(
    'vitdet-huggingface',
    'VitDet (transformers)',
    'vitdet|backbone',
    [
        (rf'embeddings\.projection{LEAF}', r'stem.proj.\1'),
        (r'embeddings\.position_embeddings', r'stem.position'),
        (rf'{_LAYER}(norm[12]|mlp\.fc[12]){LEAF}', r'blocks.\1.\2.\3'),
        (rf'{_LAYER}attention\.(qkv|proj){LEAF}', r'blocks.\1.attn.\2.\3'),
        (rf'{_LAYER}attention\.rel_pos_([hw])', r'blocks.\1.attn.relative.rel_\2'),
        (rf'{_LAYER}residual\.(conv|norm)([123]){LEAF}', r'blocks.\1.residual.\2\3.\4'),
    ],
    rf'{_LAYER}attention\.qkv\.weight',
    dict,
)
