# The drop path rate is not published: here that of the base network.
_base_ = './cascade-mask-rcnn_maxvit-tiny_fpn_32xb8-ms0.1-896-90k_coco.py'

checkpoint = 'checkpoints/maxvit-small_in1k.pth'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.8, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
