_base_ = './san10-acmix_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://san15-acmix_in1k'
model = dict(backbone=dict(arch='san15', init_cfg=dict(checkpoint=checkpoint)))
