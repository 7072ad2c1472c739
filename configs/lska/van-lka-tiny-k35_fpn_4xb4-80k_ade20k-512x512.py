_base_ = './van-lka-tiny_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-lka-tiny-k35_in1k'
model = dict(backbone=dict(kernel_size=35, init_cfg=dict(checkpoint=checkpoint)))
