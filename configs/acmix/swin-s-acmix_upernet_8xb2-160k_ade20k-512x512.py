_base_ = './swin-t-acmix_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://swin-s-acmix_in1k'
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)))
