# Cascade Mask R-CNN of MaxViT in TensorFlow's model garden: levels 3 to 7 of a FPN with anchors of
# 3 scales, two convolutions before proposals, two stages at IoU thresholds 0.6 and 0.7 with
# class-agnostic boxes, whose losses are averaged. Different here: a mask head for each stage (one
# there), no norms in the RPN (batch norms there), the losses of MMDetection, and in stage 2 a
# sample of boxes (all there).
_base_ = './cascade-mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='SyncBN', momentum=0.01, eps=1e-3, requires_grad=True)
bbox_heads = [
    dict(
        head,
        type='ConvFCBBoxHead',
        num_shared_convs=4,
        num_shared_fcs=1,
        conv_out_channels=256,
        norm_cfg=norm_cfg,
    )
    for head in _base_.bbox_heads[:2]
]
stages = _base_.model.train_cfg.rcnn[1:]
stages[0].assigner.neg_iou_thr = 0.5  # nothing from 0.5 to 0.6
model = dict(
    neck=dict(
        start_level=1,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
        num_outs=5,
        norm_cfg=norm_cfg,
        no_norm_on_lateral=True,
    ),
    rpn_head=dict(
        num_convs=2,
        anchor_generator=dict(
            _delete_=True,
            type='AnchorGenerator',
            octave_base_scale=3,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
    ),
    roi_head=dict(
        num_stages=2,
        stage_loss_weights=[0.5, 0.5],
        bbox_roi_extractor=dict(featmap_strides=[8, 16, 32, 64]),
        mask_roi_extractor=dict(featmap_strides=[8, 16, 32, 64]),
        bbox_head=bbox_heads,
        mask_head=dict(norm_cfg=dict(norm_cfg, type='BN')),
    ),
    train_cfg=dict(rpn=dict(allowed_border=-1), rpn_proposal=dict(max_per_img=1000), rcnn=stages),
)
