"""Layouts of plain vision transformers: timm's and MAE's, MMPretrain's, detectron2's ViTDet."""

import re

import torch.nn.functional as F

from hybrid_mm.convert.core import Source, StateDict, register, rename, unknown_key
from hybrid_mm.convert.detectron2 import register_detectron2

_LEAF = r'\.(weight|bias)'
_RULES = [
    (rf'patch_embed\.proj(?:ection)?{_LEAF}', r'stem.proj.\1'),
    (r'pos_embed', r'stem.position'),
    (r'cls_token', r'stem.class_token'),
    (rf'(blocks\.\d+)\.(norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12]){_LEAF}', r'\1.\2.\3'),
    (rf'(blocks\.\d+)\.residual\.(conv|norm)([123]){_LEAF}', r'\1.residual.\2\3.\4'),
    (r'(blocks\.\d+)\.attn\.rel_pos_([hw])', r'\1.attn.relative.rel_\2'),
    (r'(blocks\.\d+)\.ls([12])\.gamma', r'\1.gamma\2'),
    (r'layers\.(\d+)\.(?:attn|ffn)\.gamma([12])\.weight', r'blocks.\1.gamma\2'),
    (rf'layers\.(\d+)\.ln([12]){_LEAF}', r'blocks.\1.norm\2.\3'),
    (rf'layers\.(\d+)\.attn\.(qkv|proj){_LEAF}', r'blocks.\1.attn.\2.\3'),
    (r'layers\.(\d+)\.attn\.rel_pos_([hw])', r'blocks.\1.attn.relative.rel_\2'),
    (rf'layers\.(\d+)\.ffn\.layers\.0\.0{_LEAF}', r'blocks.\1.mlp.fc1.\2'),
    (rf'layers\.(\d+)\.ffn\.layers\.1{_LEAF}', r'blocks.\1.mlp.fc2.\2'),
    (rf'(?:norm_pre|pre_norm){_LEAF}', r'stem.pre_norm.\1'),
    (rf'(?:norm|ln1){_LEAF}', r'norm.\1'),
    (rf'head{_LEAF}', r'head.\1'),
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
            'these are weights of a distilled DeiT, whose distillation token ViT has no place for: '
            'take those of the same network without distillation (deit_base_patch16_224 instead of '
            'deit_base_distilled_patch16_224)'
        )


def _convert(state: StateDict) -> StateDict:
    """Convert to ``blocks.I`` and ``norm``, which networks load with any division into stages."""
    no_distillation(state)
    kept = {key: value for key, value in state.items() if not _TRAINING_ONLY.fullmatch(key)}
    out = rename(kept, _RULES, 'vit')
    position = out.get('stem.position')
    if position is not None and position.ndim == 4:  # MMPretrain's ViTSAM: (1, rows, columns, C)
        out['stem.position'] = F.pad(position.flatten(1, 2), (0, 0, 1, 0))
    return out


def _matches(keys: set[str]) -> bool:
    embed = {'patch_embed.proj.weight', 'patch_embed.projection.weight'}
    block = {'blocks.0.attn.qkv.weight', 'layers.0.attn.qkv.weight'}
    others = any(key.endswith('.relative_position_bias_table') for key in keys)  # MMSegmentation's
    return 'pos_embed' in keys and bool(keys & embed and keys & block) and not others


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
