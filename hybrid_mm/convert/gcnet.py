"""Layout of the official GCNet detectors, which MMDetection 1.x wrote.

Their backbone has the names of MMDetection 3.x, except for the offsets of deformable convolutions.
The heads differ: they are next to the backbone, not in a ``roi_head``, and the background was
class 0, while it is the last class now. Weights of box deltas are not changed, although they were
trained with widths of x2 - x1 + 1 and an RoIAlign without the half-pixel shift: boxes of a
converted detector differ slightly.
"""

import re

import torch
from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, register, rename

NAME = 'gcnet-mmdet1'
_LEAF = r'\.(?:weight|bias|running_mean|running_var|num_batches_tracked)'
_BODY = r'((?:backbone\.)?(?:layer[1-4]\.\d+\.)?'
_RULES = [
    (_BODY + r'(?:conv[123]|bn[123]|downsample\.[01])' + _LEAF + ')', r'\1'),
    (_BODY + r'conv2)_offset(\.weight|\.bias)', r'\1.conv_offset\2'),
    (_BODY + r'context_block\.(?:conv_mask|channel_(?:add|mul)_conv\.[013])' + _LEAF + ')', r'\1'),
    (r'(neck\.(?:lateral|fpn)_convs\.\d+\.(?:conv|bn)' + _LEAF + ')', r'\1'),
    (r'(rpn_head\.rpn_(?:conv|cls|reg)' + _LEAF + ')', r'\1'),
    (r'(bbox_head\.(?:\d+\.)?(?:shared_convs\.\d+\.(?:conv|bn)|shared_fcs\.\d+|fc_cls|fc_reg)'
     + _LEAF + ')', r'roi_head.\1'),
    (r'(mask_head\.(?:\d+\.)?(?:convs\.\d+\.(?:conv|bn)|upsample|conv_logits)' + _LEAF + ')',
     r'roi_head.\1'),
]  # fmt: skip
_OLD_HEAD = re.compile(r'bbox_head\.(?:\d+\.)?fc_cls\.weight')
_OLD_OFFSET = re.compile(r'(?:backbone\.)?layer[1-4]\.\d+\.conv2_offset\.weight')
_TRANSFORMER = ('encoder.', 'decoder.', 'bbox_head.transformer.', 'query_embedding.')


def _matches(keys: set[str]) -> bool:
    # DETR's head has such a layer as well, today as then
    if any(key.startswith(_TRANSFORMER) for key in keys):
        return False
    return any(_OLD_HEAD.fullmatch(key) or _OLD_OFFSET.fullmatch(key) for key in keys)


def _without_background(key: str, value: Tensor, per_class: int, classes: int) -> Tensor:
    """Drop the rows of class 0 of a class-specific layer; keep a class-agnostic one."""
    if len(value) == per_class:
        return value
    if len(value) != per_class * (classes + 1):
        raise ValueError(
            f'{NAME}: {key} has {len(value)} rows; expected {per_class} (class-agnostic) or '
            f'{per_class} for each of {classes} classes and the background'
        )
    return value[per_class:]


def _convert(state: StateDict) -> StateDict:
    out = rename(state, _RULES, NAME)
    counts = {len(v) - 1 for k, v in out.items() if k.endswith('fc_cls.weight')}
    if len(counts) > 1:
        raise ValueError(f'{NAME}: box heads for different numbers of classes: {sorted(counts)}')
    if not counts and any('conv_logits' in key for key in out):
        raise ValueError(f'{NAME}: a mask head without a box head, which has the number of classes')
    for key, value in out.items():
        if re.search(r'fc_cls\.\w+$', key):
            out[key] = torch.cat([value[1:], value[:1]])
        elif re.search(r'fc_reg\.\w+$', key):
            out[key] = _without_background(key, value, 4, *counts)
        elif re.search(r'conv_logits\.\w+$', key):
            out[key] = _without_background(key, value, 1, *counts)
    return out


register(NAME, Source('GCNet, a detector of MMDetection 1.x', _matches, _convert, whole=True))
