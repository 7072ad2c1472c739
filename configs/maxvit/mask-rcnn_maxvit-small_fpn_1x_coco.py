_base_ = './mask-rcnn_maxvit-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://maxvit-small_in1k'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
