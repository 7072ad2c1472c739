# Cascade Mask R-CNN with detectron2's heads for large backbones (ViTDet, MViTv2): four convolutions
# and one linear layer per box head, boxes without classes, L1 loss, two convolutions in the RPN,
# SyncBN in box and mask heads. MMDetection weighs the stages by 1, 0.5 and 0.25 and has three mask
# heads; detectron2 has equal weights, a third of the gradient into the features, and one mask head.
_base_ = './cascade-mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
bbox_heads = [
    dict(
        type='ConvFCBBoxHead',
        num_shared_convs=4,
        num_shared_fcs=1,
        in_channels=256,
        conv_out_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=80,
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=stds
        ),
        reg_class_agnostic=True,
        norm_cfg=norm_cfg,
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    )
    for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [1 / 30, 1 / 30, 1 / 15, 1 / 15])
]

model = dict(
    rpn_head=dict(num_convs=2, loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    roi_head=dict(bbox_head=bbox_heads, mask_head=dict(norm_cfg=norm_cfg)),
)
