"""Heads of detectron2's R-CNNs under the names of MMDetection 3.x.

The numbers mean the same in both libraries, so nothing but names changes: the background is the
last class, boxes are (dx, dy, dw, dh) for class after class, the three anchors of a place go from
wide to tall, and linear layers read maps as (C, H, W). Checked by running the heads of both with
one set of weights.

Cascades differ in two things. detectron2 has one mask head, MMDetection one per stage, of whose
masks it takes the mean: all of them become the one of the file. And detectron2 averages the
probabilities of the stages, MMDetection their logits, so scores differ slightly.
"""

import re

from hybrid_mm.convert.core import LEAF, StateDict, unknown_key

NORM = r'norm\.(weight|bias|running_mean|running_var|num_batches_tracked)'
_RPN = r'proposal_generator\.rpn_head\.'
_BOX = r'roi_heads\.box_(?:head|predictor)\.(\d+\.)?'
_MASK = r'roi_heads\.mask_head\.'
# `#` is the layer's number, which detectron2 counts from one; groups of _BOX come first
_RULES = [
    (rf'{_RPN}conv{LEAF}', r'rpn_head.rpn_conv.\1'),
    (rf'{_RPN}conv\.conv(\d+){LEAF}', r'rpn_head.rpn_conv.\1.conv.\2'),
    (rf'{_RPN}objectness_logits{LEAF}', r'rpn_head.rpn_cls.\1'),
    (rf'{_RPN}anchor_deltas{LEAF}', r'rpn_head.rpn_reg.\1'),
    (rf'{_BOX}conv(?P<n>\d+){LEAF}', r'roi_head.bbox_head.\1shared_convs.#.conv.\3'),
    (rf'{_BOX}conv(?P<n>\d+)\.{NORM}', r'roi_head.bbox_head.\1shared_convs.#.@.\3'),
    (rf'{_BOX}fc(?P<n>\d+){LEAF}', r'roi_head.bbox_head.\1shared_fcs.#.\3'),
    (rf'{_BOX}cls_score{LEAF}', r'roi_head.bbox_head.\1fc_cls.\2'),
    (rf'{_BOX}bbox_pred{LEAF}', r'roi_head.bbox_head.\1fc_reg.\2'),
    (rf'{_MASK}mask_fcn(?P<n>\d+){LEAF}', r'roi_head.mask_head.convs.#.conv.\2'),
    (rf'{_MASK}mask_fcn(?P<n>\d+)\.{NORM}', r'roi_head.mask_head.convs.#.@.\2'),
    (rf'{_MASK}deconv{LEAF}', r'roi_head.mask_head.upsample.\1'),
    (rf'{_MASK}predictor{LEAF}', r'roi_head.mask_head.conv_logits.\1'),
]
_CONVERTED = re.compile(r'(proposal_generator|roi_heads\.(box_head|box_predictor|mask_head))\..*')
# buffers of old versions, and frequencies of classes that only the loss for LVIS reads
_CONSTANTS = re.compile(
    r'pixel_(mean|std)|proposal_generator\.anchor_generator\..*'
    r'|roi_heads\.box_predictor\.(\d+\.)?fed_loss_cls_weights'
)


def norm_name(state: StateDict, layer: str) -> str:
    """Name of the norm of a convolution ``layer`` in MMCV: ``bn``, or ``ln`` without statistics."""
    return 'bn' if f'{layer}.norm.running_mean' in state else 'ln'


def heads(state: StateDict) -> StateDict:
    """Convert RPN, box and mask heads; other heads, which MMDetection has not, keep their names.

    Raises:
        ValueError: A key within one of these heads is unknown.
    """
    stages = {m[1] for key in state if (m := re.match(r'roi_heads\.box_predictor\.(\d+)\.', key))}
    out: StateDict = {}
    for key, value in state.items():
        if _CONSTANTS.fullmatch(key):
            continue
        new = _renamed(key, state) if _CONVERTED.fullmatch(key) else key
        if new is None:
            raise unknown_key('detectron2', key, value)
        start = 'roi_head.mask_head.'
        if stages and new.startswith(start):
            rest = new.removeprefix(start)
            out |= {f'{start}{stage}.{rest}': value for stage in sorted(stages)}
        else:
            out[new] = value
    return out


def _renamed(key: str, state: StateDict) -> str | None:
    for pattern, new in _RULES:
        if match := re.fullmatch(pattern, key):
            name = match.expand(new)
            if '#' in name:
                name = name.replace('#', str(int(match['n']) - 1))
            return name.replace('@', norm_name(state, key.split('.norm.')[0]))
    return None
