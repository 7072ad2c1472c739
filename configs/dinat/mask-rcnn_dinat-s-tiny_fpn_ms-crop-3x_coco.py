_base_ = './mask-rcnn_dinat-mini_fpn_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://dinat-s-tiny_in1k'
model = dict(
    backbone=dict(type='hybrid_mm.DiNATs', arch='tiny', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
