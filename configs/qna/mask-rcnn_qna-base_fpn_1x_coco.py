_base_ = './mask-rcnn_qna-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://qna-base_in1k'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
