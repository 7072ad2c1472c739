_base_ = './mask-rcnn_coatnet-0-rw_fpn_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://coatnet-1-rw_in1k'
model = dict(
    backbone=dict(arch='1-rw', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
