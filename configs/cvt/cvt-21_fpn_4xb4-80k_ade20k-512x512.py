_base_ = './cvt-13_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://cvt-21_in1k'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
