# Kernel size 65 is in the paper, not in the official code; it follows the rule of the others.
_base_ = './van-lska-tiny_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-lska-tiny-k65_in1k'
model = dict(backbone=dict(kernel_size=65, init_cfg=dict(checkpoint=checkpoint)))
