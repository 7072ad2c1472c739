_base_ = './mask-rcnn_dinat-mini_fpn_ms-crop-3x_coco.py'

checkpoint = 'checkpoints/dinat-s-tiny_in1k.pth'
model = dict(
    backbone=dict(type='hybrid_mm.DiNATs', arch='tiny', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
