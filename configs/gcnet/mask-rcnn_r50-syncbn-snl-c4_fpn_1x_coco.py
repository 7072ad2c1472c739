_base_ = './mask-rcnn_r50-syncbn-gcb-r16-c4_fpn_1x_coco.py'

model = dict(
    backbone=dict(stage_plugins=dict(cfg=dict(_delete_=True, type='hybrid_mm.SimplifiedNonLocal')))
)
