_base_ = './mask-rcnn_levit-128s_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://levit-256_in1k'
model = dict(
    backbone=dict(arch='256', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 384, 512]),
)
