# Cascade Mask R-CNN with detectron2's heads for large backbones (ViTDet, MViTv2): four convolutions
# and one linear layer per box head, boxes without classes, L1 loss, two convolutions in the RPN,
# SyncBN in box and mask heads, 1000 proposals, no filter of anchors at the border. detectron2 has
# equal weights of the stages and lets a third of their gradients into the features: so do weights
# of 1/3, since AdamW does not see the scale of a head's own gradients. It has one mask head,
# MMDetection three.
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
    roi_head=dict(
        stage_loss_weights=[1 / 3] * 3, bbox_head=bbox_heads, mask_head=dict(norm_cfg=norm_cfg)
    ),
    train_cfg=dict(rpn=dict(allowed_border=-1), rpn_proposal=dict(max_per_img=1000)),
)
