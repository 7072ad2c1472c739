# The model garden starts from weights of JFT-300M, which are not public. survival_prob 0.2 drops
# 0.8 k / 24 of block k of 24, counted from 0.
_base_ = './cascade-mask-rcnn_maxvit-tiny_fpn_32xb8-ms0.1-896-90k_coco.py'

checkpoint = 'hybrid_mm://maxvit-large_in1k'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.8 * 23 / 24, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
