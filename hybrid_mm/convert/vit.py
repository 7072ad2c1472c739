"""Layouts of plain vision transformers: timm's and MAE's, MMPretrain's, detectron2's ViTDet.

Of classifiers the parts behind the last block are named ``head.``, of networks with a neck of
their own (Segment Anything) those of the neck ``neck.``.

Some networks have the names of others and compute something else, which no file tells: timm's
``*_quickgelu`` has another GELU, ``*_rpn`` norms after its branches, ``*_rope_ape`` and the
Perception Encoder rotary positions that are computed. Ours are neither.
"""

import math
import re

import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.convert.core import LEAF, Source, StateDict, register, rename, unknown_key
from hybrid_mm.convert.detectron2 import register_detectron2

_RULES = [
    (rf'patch_embed\.proj(?:ection)?{LEAF}', r'stem.proj.\1'),
    (r'pos_embed', r'stem.position'),
    (r'cls_token', r'stem.class_token'),
    (rf'(blocks\.\d+)\.(norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12]){LEAF}', r'\1.\2.\3'),
    (rf'(blocks\.\d+\.mlp)\.lin([12]){LEAF}', r'\1.fc\2.\3'),
    (rf'(blocks\.\d+)\.residual\.(conv|norm)([123]){LEAF}', r'\1.residual.\2\3.\4'),
    (r'(blocks\.\d+)\.attn\.rel_pos_([hw])', r'\1.attn.relative.rel_\2'),
    (r'(blocks\.\d+)\.(?:ls([12])\.gamma|gamma_([12]))', r'\1.gamma\2\3'),
    (r'layers\.(\d+)\.(?:attn|ffn)\.gamma([12])\.weight', r'blocks.\1.gamma\2'),
    (rf'layers\.(\d+)\.ln([12]){LEAF}', r'blocks.\1.norm\2.\3'),
    (rf'layers\.(\d+)\.attn\.(qkv|proj){LEAF}', r'blocks.\1.attn.\2.\3'),
    (r'layers\.(\d+)\.attn\.rel_pos_([hw])', r'blocks.\1.attn.relative.rel_\2'),
    (rf'layers\.(\d+)\.ffn\.layers\.0\.0{LEAF}', r'blocks.\1.mlp.fc1.\2'),
    (rf'layers\.(\d+)\.ffn\.layers\.1{LEAF}', r'blocks.\1.mlp.fc2.\2'),
    (rf'(?:norm_pre|pre_norm){LEAF}', r'stem.pre_norm.\1'),
    (rf'(?:norm|ln1){LEAF}', r'norm.\1'),
    (rf'head(?:\.fc)?{LEAF}', r'head.\1'),
    (rf'pre_logits\.fc{LEAF}', r'head.pre_logits.\1'),
    (rf'(?:fc_norm|ln2){LEAF}', r'head.norm.\1'),  # of the mean over all tokens
    (r'attn_pool\.(.+)', r'head.attn_pool.\1'),
    (rf'(?:neck|channel_reduction)\.(\d){LEAF}', r'neck.\1.\2'),
    (rf'neck{LEAF}', r'neck.\1'),
]
# what other networks of these names have, and ours has not
_ABSENT = [
    (r'reg_token|register_tokens', 'register tokens'),
    (r'blocks\.\d+\.attn\.[qk]_norm\..+', 'norms of queries and keys'),
    (r'blocks\.\d+\.(?:attn|mlp)\.norm\..+', 'norms within attention and MLP'),
    (r'blocks\.\d+\.attn\.[qkv]_bias', 'biases of queries and values without one of keys'),
    (r'blocks\.\d+\.mlp\.(?:fc1_[gx]|w12|w3)\..+', 'gated MLPs (SwiGLU)'),
    (r'blocks\.\d+\.(?:attns|ffns|in_\w+|mlp_\w+|attn_\w+)(?:\..+)?', 'parallel attention and MLP'),
    (r'(?:.+\.)?rope\..+|(?:.+\.)?relative_position_.+', 'positions of this kind'),
]
# no part of a backbone: those of MAE's pre-training
_TRAINING_ONLY = re.compile(r'mask_token|decoder_.*')


def no_distillation(state: StateDict) -> None:
    """Check that weights are none of a DeiT with a distillation token.

    Raises:
        ValueError: They are: the token takes part in every attention, so that the maps would not be
            those of the network without it.
    """
    tokens = ('dist_token', 'stem.dist_token')
    if any(token in state for token in tokens):
        raise ValueError(
            'these are weights of a distilled DeiT, whose distillation token (dist_token) ViT has '
            'no place for: take those of the same network without distillation '
            '(deit_base_patch16_224 instead of deit_base_distilled_patch16_224)'
        )


def _convert(state: StateDict) -> StateDict:
    """Convert to ``blocks.I`` and ``norm``, which networks load with any division into stages."""
    no_distillation(state)
    kept = {key: value for key, value in state.items() if not _TRAINING_ONLY.fullmatch(key)}
    _check_parts(kept)
    out = rename(kept, _RULES, 'vit')
    position, patches = out.pop('stem.position', None), out.get('stem.proj.weight')
    if position is not None:
        out |= _named(position)
    elif patches is not None:  # of a network with relative ones alone
        out['stem.position'] = patches.new_zeros(1, 2, len(patches))
    if patches is not None and patches.ndim == 2:  # timm's first ones, (C, 3 rows columns)
        side = math.isqrt(patches.shape[1] // 3)
        out['stem.proj.weight'] = patches.unflatten(1, (3, side, side))
    return out


def _named(position: Tensor) -> StateDict:
    """Positions under the name of ours, which have an entry of the class token in front.

    A square number of them may be that of a square map without this entry, also beside a class
    token (DeiT III), or that of another map with it: 4 x 6 patches and a class token are 25. The
    network tells by its own map, hence another name.

    Args:
        position: (1, entries, C), or of Segment Anything (1, rows, columns, C).
    """
    if position.ndim == 4:
        return {'stem.position': F.pad(position.flatten(1, 2), (0, 0, 1, 0))}
    square = position.ndim == 3 and math.isqrt(position.shape[1]) ** 2 == position.shape[1]
    return {'stem.patch_position' if square else 'stem.position': position}


def _check_parts(state: StateDict) -> None:
    """Check that there is nothing which our network does not have.

    Raises:
        ValueError: Names the part and a key of it.
    """
    for key, value in state.items():
        for pattern, part in _ABSENT:
            if re.fullmatch(pattern, key):
                shape = tuple(value.shape)
                raise ValueError(f'vit: {key!r} {shape} is of {part}, which our ViT does not have')
    if 'norm_pre.weight' in state and any(key.startswith('attn_pool.') for key in state):
        raise ValueError(
            "vit: 'norm_pre.weight' beside 'attn_pool.' is of the Perception Encoder, whose rotary "
            'positions our ViT does not have'
        )
    for key, value in state.items():
        fc2 = key.replace('.mlp.fc1.', '.mlp.fc2.')
        if key.endswith('.mlp.fc1.weight') and fc2 in state and len(value) != state[fc2].shape[1]:
            raise ValueError(
                f'vit: {key!r} {tuple(value.shape)} beside {fc2!r} {tuple(state[fc2].shape)} is of '
                'gated MLPs (SwiGLU), which our ViT does not have'
            )


def _matches(keys: set[str]) -> bool:
    embed = {'patch_embed.proj.weight', 'patch_embed.projection.weight'}
    block = {f'{name}.0.attn.qkv.weight' for name in ('blocks', 'layers')}
    block |= {'blocks.0.in_proj.weight', 'blocks.0.attns.0.attn.qkv.weight'}  # parallel ones
    position = {'pos_embed', 'blocks.0.attn.rel_pos_h', 'layers.0.attn.rel_pos_h'}
    pooled = 'blocks.0.attn.pool_k.weight' in keys  # MViT
    biases = any(key.endswith('.relative_position_bias_table') for key in keys)  # MMSegmentation's
    return bool(keys & embed and keys & block and keys & position) and not (pooled or biases)


_SAM = 'image_encoder.'


def _segment_anything(state: StateDict) -> StateDict:
    """Convert the image encoder to ``backbone.``; prompt encoder and mask decoder stay."""
    inner = {k.removeprefix(_SAM): v for k, v in state.items() if k.startswith(_SAM)}
    rest = {k: v for k, v in state.items() if not k.startswith(_SAM)}
    return {f'backbone.{key}': value for key, value in _convert(inner).items()} | rest


def _simple_fpn(state: StateDict) -> StateDict:
    """Convert the neck to the keys of :class:`hybrid_mm.openmmlab.simple_fpn.SimpleFPN`."""
    out = {}
    for key, value in state.items():
        match = re.fullmatch(r'simfp_([2345])\.(\d+)\.(norm\.)?(weight|bias)', key)
        if match is None:
            raise unknown_key('detectron2', key, value)
        level, layer = int(match[1]) - 2, int(match[2])
        # there a norm is part of its convolution; our levels end with conv, norm, conv, norm
        first = (4, 1, 0, 1)[level]
        if layer >= first:
            layer = first + 2 * (layer - first) + bool(match[3])
        out[f'levels.{level}.{layer}.{match[4]}'] = value
    return out


register('vit', Source('ViT (timm, facebookresearch/mae), MMPretrain', _matches, _convert))
register_detectron2(
    'vitdet-detectron2', 'ViTDet of detectron2', 'net.', _matches, _convert, _simple_fpn
)
register(
    'segment-anything',
    Source(
        'Segment Anything (facebookresearch/segment-anything), whose image encoder is a ViT',
        lambda keys: _matches({k.removeprefix(_SAM) for k in keys if k.startswith(_SAM)}),
        _segment_anything,
        whole=True,
    ),
)
