_base_ = './van-b1_fpn_8xb4-40k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b3_in1k'
model = dict(backbone=dict(arch='b3', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)))
