# Mask R-CNN with the heads of ViTDet: four convolutions and one linear layer for the boxes, two
# convolutions in the RPN, layer norms in neck and heads, batches padded to squares of 1024.
_base_ = './mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='hybrid_mm.LN2d', eps=1e-6)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    neck=dict(norm_cfg=norm_cfg),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
