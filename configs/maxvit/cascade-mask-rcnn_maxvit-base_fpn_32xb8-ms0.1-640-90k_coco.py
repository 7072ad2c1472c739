# Hyper-parameters of this size are not published: here those of 896 x 896 and the drop path rate of
# the tiny network.
_base_ = './cascade-mask-rcnn_maxvit-tiny_fpn_32xb8-ms0.1-640-90k_coco.py'

checkpoint = 'checkpoints/maxvit-base_in1k.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=0.05))
