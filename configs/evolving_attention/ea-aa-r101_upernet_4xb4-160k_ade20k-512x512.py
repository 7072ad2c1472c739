_base_ = './ea-aa-r50_upernet_4xb4-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://ea-aa-r101_in1k'
model = dict(backbone=dict(arch='r101', init_cfg=dict(checkpoint=checkpoint)))
