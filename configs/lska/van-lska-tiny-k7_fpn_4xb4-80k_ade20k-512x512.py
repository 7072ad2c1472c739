_base_ = './van-lska-tiny_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-lska-tiny-k7_in1k'
model = dict(backbone=dict(kernel_size=7, init_cfg=dict(checkpoint=checkpoint)))
