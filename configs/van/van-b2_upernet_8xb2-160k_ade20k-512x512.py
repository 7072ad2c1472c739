_base_ = './van-b1_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b2_in1k'
model = dict(backbone=dict(arch='b2', init_cfg=dict(checkpoint=checkpoint)))
