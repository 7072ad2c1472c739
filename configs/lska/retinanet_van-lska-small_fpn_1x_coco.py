_base_ = './retinanet_van-lska-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-lska-small_in1k'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
