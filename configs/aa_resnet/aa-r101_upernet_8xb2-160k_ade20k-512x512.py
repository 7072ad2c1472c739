_base_ = './aa-r50_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://aa-r101_in1k'
model = dict(backbone=dict(arch='r101', init_cfg=dict(checkpoint=checkpoint)))
