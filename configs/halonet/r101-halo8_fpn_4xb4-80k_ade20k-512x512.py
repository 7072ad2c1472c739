_base_ = './r50-halo8_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://r101-halo8_in1k'
model = dict(backbone=dict(arch='r101-se-b8', init_cfg=dict(checkpoint=checkpoint)))
