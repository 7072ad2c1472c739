_base_ = './van-b4_upernet_8xb4-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b4_in22k'
model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint)))
