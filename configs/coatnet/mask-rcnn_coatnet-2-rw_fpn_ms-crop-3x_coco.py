_base_ = './mask-rcnn_coatnet-0-rw_fpn_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://coatnet-2-rw_in1k'
model = dict(
    backbone=dict(arch='2-rw', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
