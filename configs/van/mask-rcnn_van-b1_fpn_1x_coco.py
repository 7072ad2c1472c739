_base_ = './mask-rcnn_van-b0_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-b1_in1k'
model = dict(
    backbone=dict(arch='b1', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
