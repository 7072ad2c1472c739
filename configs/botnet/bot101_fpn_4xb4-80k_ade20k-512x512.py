_base_ = './bot50_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://bot101-s1_in1k'
model = dict(backbone=dict(arch='bot101', init_cfg=dict(checkpoint=checkpoint)))
