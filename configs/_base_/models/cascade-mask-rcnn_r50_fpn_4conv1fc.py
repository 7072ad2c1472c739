# Cascade Mask R-CNN with detectron2's heads for large backbones (ViTDet, MViTv2): four convolutions
# and one linear layer per box head, boxes without classes, L1 loss, two convolutions in the RPN,
# SyncBN in box and mask heads. MMDetection weighs the stages by 1, 0.5 and 0.25 and has three mask
# heads; detectron2 has equal weights, a third of the gradient into the features, and one mask head.
_base_ = './cascade-mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
bbox_heads = [
    dict(
        head,
        type='ConvFCBBoxHead',
        num_shared_convs=4,
        num_shared_fcs=1,
        conv_out_channels=256,
        norm_cfg=norm_cfg,
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    )
    for head in _base_.bbox_heads
]
bbox_heads[2]['bbox_coder']['target_stds'] = [1 / 30, 1 / 30, 1 / 15, 1 / 15]

model = dict(
    rpn_head=dict(num_convs=2, loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    roi_head=dict(bbox_head=bbox_heads, mask_head=dict(norm_cfg=norm_cfg)),
)
