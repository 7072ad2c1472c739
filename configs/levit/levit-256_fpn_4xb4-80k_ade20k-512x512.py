_base_ = './levit-128s_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://levit-256_in1k'
model = dict(
    backbone=dict(arch='256', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 384]),
)
