"""Layout of Mask2Former (facebookresearch/Mask2Former) on detectron2, with any converted backbone.

The numbers mean the same in MMDetection: rows of ``in_proj_weight`` are q, k, v, offsets are
(head, level, point, x and y), levels go from coarse to fine, and "no object" is the last class.
A decoder layer attends to the map first, so its first norm is that of the cross-attention.

Semantic segmenters become those of MMSegmentation, whose head is ``decode_head``, others those of
MMDetection. The names do not tell which it is; the number of classes does, except for
ADE20K's panoptic one, which is a source of its own: there the file has things and stuff in the
order of ADE20K, MMDetection the things first.
"""

import re

from hybrid_mm.convert.core import LEAF, Source, StateDict, register, rename
from hybrid_mm.convert.core import convert as convert_backbone

_PIXEL = r'sem_seg_head\.pixel_decoder\.'
_ENCODER = rf'{_PIXEL}transformer\.encoder\.layers\.(\d+)\.'
_QUERIES = r'sem_seg_head\.predictor\.'
_LAYER = rf'{_QUERIES}transformer_'
_ATTENTION = r'\.(in_proj_(?:weight|bias)|out_proj\.(?:weight|bias))'
_OURS = r'transformer_decoder.layers.\1.'
_RULES = [
    (rf'{_PIXEL}input_proj\.(\d+)\.0{LEAF}', r'pixel_decoder.input_convs.\1.conv.\2'),
    (rf'{_PIXEL}input_proj\.(\d+)\.1{LEAF}', r'pixel_decoder.input_convs.\1.gn.\2'),
    (rf'{_PIXEL}transformer\.level_embed', r'pixel_decoder.level_encoding.weight'),
    (
        rf'{_ENCODER}self_attn\.(sampling_offsets|attention_weights|value_proj|output_proj){LEAF}',
        r'pixel_decoder.encoder.layers.\1.self_attn.\2.\3',
    ),
    (rf'{_ENCODER}norm1{LEAF}', r'pixel_decoder.encoder.layers.\1.norms.0.\2'),
    (rf'{_ENCODER}norm2{LEAF}', r'pixel_decoder.encoder.layers.\1.norms.1.\2'),
    (rf'{_ENCODER}linear1{LEAF}', r'pixel_decoder.encoder.layers.\1.ffn.layers.0.0.\2'),
    (rf'{_ENCODER}linear2{LEAF}', r'pixel_decoder.encoder.layers.\1.ffn.layers.1.\2'),
    (rf'{_PIXEL}adapter_(\d+){LEAF}', r'pixel_decoder.lateral_convs.\1.conv.\2'),
    (rf'{_PIXEL}adapter_(\d+)\.norm{LEAF}', r'pixel_decoder.lateral_convs.\1.gn.\2'),
    (rf'{_PIXEL}layer_(\d+){LEAF}', r'pixel_decoder.output_convs.\1.conv.\2'),
    (rf'{_PIXEL}layer_(\d+)\.norm{LEAF}', r'pixel_decoder.output_convs.\1.gn.\2'),
    (rf'{_PIXEL}mask_features{LEAF}', r'pixel_decoder.mask_feature.\1'),
    (
        rf'{_LAYER}cross_attention_layers\.(\d+)\.multihead_attn{_ATTENTION}',
        rf'{_OURS}cross_attn.attn.\2',
    ),
    (rf'{_LAYER}cross_attention_layers\.(\d+)\.norm{LEAF}', rf'{_OURS}norms.0.\2'),
    (
        rf'{_LAYER}self_attention_layers\.(\d+)\.self_attn{_ATTENTION}',
        rf'{_OURS}self_attn.attn.\2',
    ),
    (rf'{_LAYER}self_attention_layers\.(\d+)\.norm{LEAF}', rf'{_OURS}norms.1.\2'),
    (rf'{_LAYER}ffn_layers\.(\d+)\.linear1{LEAF}', rf'{_OURS}ffn.layers.0.0.\2'),
    (rf'{_LAYER}ffn_layers\.(\d+)\.linear2{LEAF}', rf'{_OURS}ffn.layers.1.\2'),
    (rf'{_LAYER}ffn_layers\.(\d+)\.norm{LEAF}', rf'{_OURS}norms.2.\2'),
    (rf'{_QUERIES}decoder_norm{LEAF}', r'transformer_decoder.post_norm.\1'),
    (rf'{_QUERIES}(?:query_feat|static_query)\.weight', r'query_feat.weight'),
    (rf'{_QUERIES}(query_embed|level_embed)\.weight', r'\1.weight'),
    (rf'{_QUERIES}input_proj\.(\d+){LEAF}', r'decoder_input_projs.\1.\2'),
    (rf'{_QUERIES}class_embed{LEAF}', r'cls_embed.\1'),
    # linear layers, between which ours has activations
    (rf'{_QUERIES}mask_embed\.layers\.0{LEAF}', r'mask_embed.0.\1'),
    (rf'{_QUERIES}mask_embed\.layers\.1{LEAF}', r'mask_embed.2.\1'),
    (rf'{_QUERIES}mask_embed\.layers\.2{LEAF}', r'mask_embed.4.\1'),
]
_CONSTANTS = re.compile(r'criterion\.empty_weight|pixel_(mean|std)')
_CLASSES = 'sem_seg_head.predictor.class_embed.weight'
_SEMANTIC = {150, 19}  # classes of ADE20K and Cityscapes
# of ADE20K's 150 classes, counted from 0
_STUFF = [
    *(0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54),
    *(59, 60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117),
    *(122, 128, 131, 140, 141, 145),
]


def _matches(keys: set[str]) -> bool:
    return _CLASSES in keys and any(key.startswith('sem_seg_head.pixel_decoder.') for key in keys)


def _convert(state: StateDict, head: str | None = None) -> StateDict:
    """Convert a segmenter whose head MMDetection or MMSegmentation calls ``head``."""
    if head is None:
        semantic = _CLASSES in state and len(state[_CLASSES]) - 1 in _SEMANTIC
        head = 'decode_head' if semantic else 'panoptic_head'
    start = 'backbone.'
    network = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    rest = {
        key: value
        for key, value in state.items()
        if not key.startswith(start) and not _CONSTANTS.fullmatch(key)
    }
    out = {f'{start}{key}': value for key, value in convert_backbone(network).items()}
    found = _from_coarse(rename(rest, _RULES, NAME))
    return out | {f'{head}.{key}': value for key, value in found.items()}


def _from_coarse(state: StateDict) -> StateDict:
    """Number the layers of the feature pyramid from coarse to fine from 0, not back from 1."""
    pattern = re.compile(r'(pixel_decoder\.(?:lateral|output)_convs\.)(\d+)(\..*)')
    matches = {key: pattern.fullmatch(key) for key in state}
    count = max((int(match[2]) for match in matches.values() if match), default=0)

    def place(key: str) -> str:
        match = matches[key]
        return f'{match[1]}{count - int(match[2])}{match[3]}' if match else key

    return {place(key): value for key, value in state.items()}


def _things_first(state: StateDict) -> StateDict:
    """Convert a panoptic segmenter of ADE20K."""
    out = _convert(state, 'panoptic_head')
    stuff = set(_STUFF)
    order = [index for index in range(150) if index not in stuff] + _STUFF + [150]
    for key in ('panoptic_head.cls_embed.weight', 'panoptic_head.cls_embed.bias'):
        if len(out[key]) != len(order):
            raise ValueError(
                f'{NAME}-ade20k-panoptic: {key} has {len(out[key])} rows; '
                f'expected {len(order)}, 150 classes and "no object"'
            )
        out[key] = out[key][order]
    return out


NAME = 'mask2former'
_WHAT = 'Mask2Former (facebookresearch/Mask2Former)'
register(NAME, Source(_WHAT, _matches, _convert, whole=True))
# to be named: their keys are those of the source above
register(
    f'{NAME}-semantic',
    Source(
        f'{_WHAT}, semantic segmentation of any number of classes',
        lambda keys: False,
        lambda state: _convert(state, 'decode_head'),
        whole=True,
    ),
)
register(
    f'{NAME}-ade20k-panoptic',
    Source(
        f'{_WHAT}, panoptic segmentation of ADE20K', lambda keys: False, _things_first, whole=True
    ),
)
