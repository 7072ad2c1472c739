# RetinaNet of MaxViT in TensorFlow's model garden, as in the TPU code base, with batch norm per
# device and other losses: focal loss with gamma 1.5; 50 times a Huber loss with delta 0.1, which
# is a mean over the 4 numbers of a box, so 50 x 0.1 / 4 of ours.
_base_ = './retinanet_r50_fpn_scratch.py'

norm_cfg = dict(type='BN', momentum=0.01, eps=1e-3, requires_grad=True)
model = dict(
    neck=dict(norm_cfg=norm_cfg),
    bbox_head=dict(
        norm_cfg=norm_cfg,
        loss_cls=dict(gamma=1.5),
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=0.1, loss_weight=1.25),
    ),
)
