_base_ = './r50-halo8_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://r101-halo8_in1k'
model = dict(backbone=dict(arch='r101-se-b8', init_cfg=dict(checkpoint=checkpoint)))
