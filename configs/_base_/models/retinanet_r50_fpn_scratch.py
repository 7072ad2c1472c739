# RetinaNet trained from scratch, as in the TPU code base (tensorflow/tpu): batch norm trained
# everywhere, one per level in the heads; P6 and P7 from P5; an anchor is a negative below IoU 0.5.
_base_ = './retinanet_r50_fpn.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(
        norm_cfg=norm_cfg,
        no_norm_on_lateral=True,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
    ),
    bbox_head=dict(type='RetinaSepBNHead', num_ins=5, norm_cfg=norm_cfg),
    train_cfg=dict(assigner=dict(neg_iou_thr=0.5)),
)
