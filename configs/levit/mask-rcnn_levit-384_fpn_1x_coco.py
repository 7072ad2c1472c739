_base_ = './mask-rcnn_levit-128s_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://levit-384_in1k'
model = dict(
    backbone=dict(arch='384', drop_path_rate=0.1, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 512, 768]),
)
