_base_ = './van-lska-small_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-lska-base_in1k'
model = dict(backbone=dict(arch='base', init_cfg=dict(checkpoint=checkpoint)))
